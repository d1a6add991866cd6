/** Classes of dialogs, apart from the component: the first page loads none of it. */
export const DIALOG = {
  backdrop: "fixed inset-0 z-40 bg-black/45",
  popup:
    "fixed top-[14vh] left-1/2 z-50 flex max-h-[76vh] w-[calc(100vw-32px)] -translate-x-1/2 flex-col gap-3 overflow-auto rounded-lg border border-line-strong bg-base p-5 shadow-2xl outline-none",
  /** For a `<dialog>`, which centres itself and has its own backdrop. */
  native: "m-auto w-[calc(100vw-32px)] rounded-lg border border-line-strong bg-base p-5 text-ink shadow-2xl backdrop:bg-black/45",
  title: "text-[15px] font-semibold",
};
