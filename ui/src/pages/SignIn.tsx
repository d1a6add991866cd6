import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRouter, useSearch } from "@tanstack/react-router";
import { useState } from "react";

import { api, body } from "../api/client";
import { meQuery } from "../api/queries";
import { Button, ProblemNote, useTitle } from "../components/ui";

export function SignIn() {
  useTitle("Sign in");
  const { to, password: chosen } = useSearch({ from: "/sign-in" });
  const router = useRouter();
  const queries = useQueryClient();
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const signIn = useMutation({
    mutationFn: () => body(api.POST("/v1/auth/login", { body: { email, password } })),
    onSuccess: async (answer) => {
      queries.clear();
      queries.setQueryData(meQuery.queryKey, answer.user);
      await router.navigate({ href: to ?? "/servers", replace: true });
    },
  });
  return (
    <main className="bg-sunk flex min-h-full items-start justify-center px-5 pt-[16vh] pb-10">
      <div className="w-full max-w-[340px]">
        <div className="mb-6 flex items-center gap-3">
          <img src="/favicon.svg" width="34" height="34" alt="" />
          <div>
            <h1 className="text-lg leading-tight font-semibold tracking-tight">Sign in to Rackhand</h1>
            <p className="text-soft">{location.host}</p>
          </div>
        </div>
        <form
          className="panel flex flex-col gap-3.5 p-5"
          onSubmit={(event) => {
            event.preventDefault();
            if (!signIn.isPending) signIn.mutate();
          }}
        >
          {chosen === "set" && signIn.error === null && <p role="status">Your password is set. Sign in with it.</p>}
          {signIn.error && <ProblemNote error={signIn.error} />}
          <label className="flex flex-col gap-1">
            <span className="font-medium">E-mail</span>
            <input
              className="field h-9"
              type="email"
              autoComplete="username"
              required
              autoFocus
              value={email}
              onChange={(event) => setEmail(event.target.value)}
            />
          </label>
          <label className="flex flex-col gap-1">
            <span className="font-medium">Password</span>
            <input
              className="field h-9"
              type="password"
              autoComplete="current-password"
              required
              value={password}
              onChange={(event) => setPassword(event.target.value)}
            />
          </label>
          <Button type="submit" look="primary" className="mt-1 h-9" busy={signIn.isPending}>
            {signIn.isPending ? "Signing in…" : "Sign in"}
          </Button>
        </form>
        {to && to !== "/" && <p className="text-soft mt-3 text-xs">You will come back to the page you wanted.</p>}
      </div>
    </main>
  );
}
