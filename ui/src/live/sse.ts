/** A reader of `text/event-stream` (WHATWG HTML, "Server-sent events"): bytes in, messages out. Pure. */
export interface Message {
  id: string;
  event: string;
  data: string;
}

export class SseParser {
  #rest = "";
  #id = "";
  #event = "";
  #data: string[] = [];

  /** Takes the next piece of the stream; gives the messages that it completes. */
  push(chunk: string): Message[] {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const out: Message[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) out.push({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue; // a comment: keep-alive
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#data.push(value);
      else if (field === "event") this.#event = value;
      else if (field === "id" && !value.includes("\0")) this.#id = value;
    }
    return out;
  }
}
