import { useMutation } from "@tanstack/react-query";
import { useLocation, useRouter } from "@tanstack/react-router";
import { useState } from "react";

import { api, body } from "../api/client";
import { problemCode } from "../api/problem";
import { Button, ProblemNote, useTitle } from "../components/ui";
import { linkToken } from "../lib/password";

/** Where a one-time link leads. The token stands after the `#`: it is never sent with the address. */
export function ChoosePassword() {
  useTitle("Choose a password");
  // Another link opened in the same tab changes the address without a new page.
  const token = linkToken(useLocation({ select: ({ hash }) => hash }));
  return (
    <main className="bg-sunk flex min-h-full items-start justify-center px-5 pt-[16vh] pb-10">
      <div className="panel flex w-full max-w-[340px] flex-col gap-3.5 p-5">
        <h1 className="text-lg leading-tight font-semibold tracking-tight">Choose a password</h1>
        <p className="text-soft wrap-anywhere">
          For your account on the control plane <b className="text-ink font-medium">{location.host}</b>.
        </p>
        {token === undefined ? <p role="alert">This link is not whole. Open all of the link that you were given, or ask an admin for a new link.</p> : <Choice key={token} token={token} />}
      </div>
    </main>
  );
}

function Choice({ token }: { token: string }) {
  const router = useRouter();
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const choose = useMutation({
    mutationFn: () => body(api.POST("/v1/auth/password-choice", { body: { token, password } })),
    onSuccess: () => router.navigate({ to: "/sign-in", search: { password: "set" }, replace: true }),
  });
  const differ = again !== "" && again !== password;
  // A link that is refused is refused for good.
  if (problemCode(choose.error) === "reset-refused") return <ProblemNote error={choose.error} />;
  return (
    <form
      className="flex flex-col gap-3.5"
      onSubmit={(event) => {
        event.preventDefault();
        if (!choose.isPending && again === password) choose.mutate();
      }}
    >
      {choose.error && <ProblemNote error={choose.error} />}
      <label className="flex flex-col gap-1">
        <span className="font-medium">New password</span>
        <input
          className="field h-9"
          type="password"
          autoComplete="new-password"
          minLength={12}
          required
          autoFocus
          value={password}
          onChange={(event) => setPassword(event.target.value)}
        />
        <span className="text-soft text-xs">At least 12 characters.</span>
      </label>
      <label className="flex flex-col gap-1">
        <span className="font-medium">The same once more</span>
        <input className="field h-9" type="password" autoComplete="new-password" required value={again} onChange={(event) => setAgain(event.target.value)} />
        {differ && <span className="text-bad text-xs">The two are not the same.</span>}
      </label>
      <Button type="submit" look="primary" className="mt-1 h-9" busy={choose.isPending}>
        Choose
      </Button>
    </form>
  );
}
