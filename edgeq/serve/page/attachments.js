// Text files and images that go before the next message, with how much of the context each text takes.

import { $, button, make, picture, say } from "./dom.js";
import { context, count, sees } from "./server.js";

const LARGEST = 4 << 20; // bytes of a text
const LARGEST_IMAGE = 8 << 20; // all of a chat's go with each request, of 16 MiB at most
const IMAGES = /^image\/(png|jpeg|webp|gif|bmp)$/;

let attached = []; // of texts {name, text}, of images {name, url}

/** Take what is attached away: `files` and `images` of a message, where there are some. */
export function taken() {
  const files = attached.filter((one) => !one.url).map(({ name, text }) => ({ name, text }));
  const images = attached.filter((one) => one.url).map(({ name, url }) => ({ name, url }));
  put([]);
  return { ...(files.length ? { files } : {}), ...(images.length ? { images } : {}) };
}

/** Attach these, and nothing else. */
export function put(files) {
  attached = files.map(({ name, text, url }) => ({ name, text, url }));
  show();
}

/** Tell again what is attached: another model counts otherwise, and may see nothing. */
export const again = () => put(attached);

async function attach(files) {
  for (const file of [...files]) {
    const wrong = await (IMAGES.test(file.type) ? addImage(file) : addText(file));
    if (wrong) say(`${file.name} ${wrong}, and was not attached.`);
  }
  show();
}

// Attach a text; or what is wrong with it.
async function addText(file) {
  try {
    if (file.size > LARGEST) throw new Error("too large");
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new Error("not a text");
    attached.push({ name: file.name, text });
  } catch {
    return `is no text of up to ${LARGEST >> 20} MiB`;
  }
}

async function addImage(file) {
  if (sees() === false) return `is an image, and ${$("model").value} sees none`;
  if (file.size > LARGEST_IMAGE) return `is larger than ${LARGEST_IMAGE >> 20} MiB`;
  try {
    const url = await dataUrl(file);
    await picture({ name: file.name, url }).decode();
    attached.push({ name: file.name, url });
  } catch {
    return "is no image that this browser can read";
  }
}

const dataUrl = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });

function show() {
  const rows = attached.map((file, i) => {
    const row = make("div");
    const size = make("span", undefined, { className: "size" });
    const drop = button("×", () => { attached.splice(i, 1); show(); }, `Remove ${file.name}`);
    row.append(...(file.url ? [picture(file)] : []), make("span", file.name, { className: "name" }), size, drop);
    const tell = (text, wrong) => {
      size.textContent = text;
      size.classList.toggle("failed", wrong);
    };
    const tellTokens = () =>
      tell(file.tokens === null ? "" : `${file.tokens} tokens${context() ? ` of ${context()}` : ""}`, Boolean(context()) && file.tokens > context());
    if (file.url) tell(sees() === false ? "this model sees no images" : "", sees() === false);
    else if (file.tokens === undefined) count(file.text).then((tokens) => { file.tokens = tokens; tellTokens(); });
    else tellTokens();
    return row;
  });
  $("attached").replaceChildren(...rows);
  $("attached").hidden = !rows.length;
  const what = sees() === false ? "Attach text files (this model sees no images)" : "Attach text files or images";
  $("attach").title = what;
  $("attach").setAttribute("aria-label", what);
}

/** Let files be chosen, dropped and pasted. */
export function begin() {
  $("attach").onclick = () => $("files").click();
  $("files").onchange = async () => { await attach($("files").files); $("files").value = ""; };
  const holds = (transfer) => transfer?.types.includes("Files");
  document.ondragover = (event) => { if (holds(event.dataTransfer)) event.preventDefault(); };
  document.ondrop = (event) => { if (holds(event.dataTransfer)) { event.preventDefault(); attach(event.dataTransfer.files); } };
  $("text").onpaste = (event) => { if (event.clipboardData?.files.length) { event.preventDefault(); attach(event.clipboardData.files); } };
  $("model").addEventListener("change", again);
}
