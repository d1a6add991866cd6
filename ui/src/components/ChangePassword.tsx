/** One's own password, changed with the present one. */
import { useState } from "react";

import { api, body } from "../api/client";
import { newPasswordProblem } from "../lib/password";
import { TextField } from "./fields";
import { FormDialog } from "./FormDialog";
import type { Look } from "./ui";

const EMPTY = { present: "", next: "", again: "" };

export function ChangePassword({ look }: { look: Look }) {
  const [typed, setTyped] = useState(EMPTY);
  const [changed, setChanged] = useState(false);
  const set = (change: Partial<typeof EMPTY>): void => setTyped((old) => ({ ...old, ...change }));
  return (
    <>
      <FormDialog
        label="Change password…"
        look={look}
        title="Change your password"
        note="It holds at once. Your other sessions end; this one continues."
        send="Change password"
        wrong={typed.present === "" ? "Type your present password." : newPasswordProblem(typed.next, typed.again)}
        failed="The password was not changed"
        act={() => body(api.POST("/v1/auth/password", { body: { present: typed.present, new: typed.next } }))}
        done={() => {
          setTyped(EMPTY);
          setChanged(true);
        }}
      >
        <TextField label="Present password" value={typed.present} set={(present) => set({ present })} type="password" autoComplete="current-password" />
        <TextField label="New password" value={typed.next} set={(next) => set({ next })} type="password" autoComplete="new-password" hint="At least 12 characters" />
        <TextField
          label="The same once more"
          value={typed.again}
          set={(again) => set({ again })}
          type="password"
          autoComplete="new-password"
          problem={typed.again !== "" && typed.again !== typed.next ? "The two are not the same." : undefined}
        />
      </FormDialog>
      <span role="status" className="text-soft block text-xs empty:hidden">
        {changed && "Changed; your other sessions have ended."}
      </span>
    </>
  );
}
