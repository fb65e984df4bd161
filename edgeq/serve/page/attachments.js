// Text files that go before the next message, with how much of the context each takes.

import { $, button, make, say } from "./dom.js";
import { context, count } from "./server.js";

const LARGEST = 4 << 20; // bytes

let attached = [];

/** Take the files that are attached away. */
export function taken() {
  const files = attached.map(({ name, text }) => ({ name, text }));
  put([]);
  return files;
}

/** Attach these, and nothing else. */
export function put(files) {
  attached = files.map(({ name, text }) => ({ name, text }));
  show();
}

async function attach(files) {
  for (const file of files) {
    try {
      if (file.size > LARGEST) throw new Error("too large");
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      if (text.includes("\0")) throw new Error("not a text");
      attached.push({ name: file.name, text });
    } catch {
      say(`${file.name} is no text of up to ${LARGEST >> 20} MiB, and was not attached.`);
    }
  }
  show();
}

function show() {
  const rows = attached.map((file, i) => {
    const row = make("div");
    const size = make("span", undefined, { className: "size" });
    const drop = button("×", () => { attached.splice(i, 1); show(); }, `Remove ${file.name}`);
    row.append(make("span", file.name, { className: "name" }), size, drop);
    const tell = () => {
      size.textContent = file.tokens === null ? "" : `${file.tokens} tokens${context() ? ` of ${context()}` : ""}`;
      size.classList.toggle("failed", Boolean(context()) && file.tokens > context());
    };
    if (file.tokens === undefined) count(file.text).then((tokens) => { file.tokens = tokens; tell(); });
    else tell();
    return row;
  });
  $("attached").replaceChildren(...rows);
  $("attached").hidden = !rows.length;
}

/** Let files be chosen, dropped and pasted. */
export function begin() {
  $("attach").onclick = () => $("files").click();
  $("files").onchange = async () => { await attach($("files").files); $("files").value = ""; };
  const holds = (transfer) => transfer?.types.includes("Files");
  document.ondragover = (event) => { if (holds(event.dataTransfer)) event.preventDefault(); };
  document.ondrop = (event) => { if (holds(event.dataTransfer)) { event.preventDefault(); attach(event.dataTransfer.files); } };
  $("text").onpaste = (event) => { if (event.clipboardData?.files.length) { event.preventDefault(); attach(event.clipboardData.files); } };
  $("model").addEventListener("change", () => put(attached)); // another model counts otherwise
}
