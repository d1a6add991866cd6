import { useId } from "react";

import { PasteList } from "../../components/PasteList";
import { bytes, count } from "../../lib/format";
import { isBlank, PACKAGES_EXAMPLE, packageKey, packageProblems, type PackageField, type PackageForm, parsePackages } from "../../lib/packages";

const LABEL: Record<PackageField, [string, string, string]> = {
  name: ["Name", "BIOS 2.19.1", "sm:col-span-2"],
  version: ["Version", "2.19.1", ""],
  software_id: ["Software id", "159", ""],
  url: ["URL", "https://repo.site.example/BIOS_2.19.1.EXE", "sm:col-span-2"],
  file_name: ["File name", "BIOS_2.19.1.EXE", ""],
  size: ["Size in bytes", "14876544", ""],
  sha256: ["SHA-256", "64 hex digits", "sm:col-span-4"],
};

interface Props {
  /** A server model, a BMC generation, or `any`. */
  target: string;
  /** How many servers get this package; absent where that is not known here. */
  servers: number | undefined;
  form: PackageForm;
  /** Also marks what is still empty. */
  strict: boolean;
  /** Must not be left empty. */
  needed?: boolean;
  change: (form: PackageForm) => void;
  remove?: () => void;
}

export function PackageEditor({ target, servers, form, strict, needed = false, change, remove }: Props) {
  const problems = packageProblems(form);
  const id = useId();
  return (
    <fieldset className="border-line rounded-md border px-3.5 pt-2 pb-3.5">
      <legend className="px-1.5">
        <span className="font-medium">{packageKey(target)}</span>
        {servers !== undefined && <span className="text-soft"> · {count(servers, "server")}</span>}
      </legend>
      <div className="grid gap-x-3 gap-y-2.5 sm:grid-cols-4">
        {(Object.keys(LABEL) as PackageField[]).map((field) => {
          const [label, example, span] = LABEL[field];
          const problem = problems[field];
          const shown = problem !== undefined && (form[field] !== "" || (strict && (needed || !isBlank(form))));
          return (
            <label key={field} className={`flex flex-col gap-1 ${span}`}>
              <span>
                {label}
                {field === "size" && problem === undefined && <span className="text-faint"> · {bytes(Number(form.size))}</span>}
              </span>
              <input
                className={`field ${["sha256", "url", "file_name"].includes(field) ? "mono" : ""}`}
                value={form[field]}
                placeholder={example}
                spellCheck={false}
                autoComplete="off"
                aria-invalid={shown || undefined}
                aria-describedby={shown ? `${id}-${field}` : undefined}
                onChange={(event) => change({ ...form, [field]: event.target.value })}
              />
              {shown && (
                <span id={`${id}-${field}`} className="text-bad text-xs">
                  {problem}
                </span>
              )}
            </label>
          );
        })}
      </div>
      {remove && (
        <button type="button" className="link text-soft mt-2.5 text-xs" onClick={remove}>
          Remove the package for {packageKey(target).replace("Any", "any")}
        </button>
      )}
    </fieldset>
  );
}

export function PastePackages({ use }: { use: (packages: Record<string, PackageForm>) => void }) {
  return (
    <PasteList
      of="packages"
      note={
        <>
          Each package stands under the server model or the BMC generation that gets it; the one under <code className="mono">&quot;any&quot;</code> is for all other servers. You can also paste an earlier job, as <code className="mono">rackhand jobs show JOB --json</code> prints it: its packages are used.
        </>
      }
      example={PACKAGES_EXAMPLE}
      parse={parsePackages}
      use={use}
    />
  );
}
