// The server that the page came from.

import { $, say } from "./dom.js";

let models = [];

const headers = () => ({ "Content-Type": "application/json", ...($("key").value ? { Authorization: `Bearer ${$("key").value}` } : {}) });

/** Tokens that the chosen model has room for; 0 where that is not known. */
export const context = () => models.find((one) => one.id === $("model").value)?.max_model_len ?? 0;

/** Whether the chosen model sees images; undefined where that is not known, as before it was loaded once. */
export const sees = () => models.find((one) => one.id === $("model").value)?.architecture?.input_modalities.includes("image");

/** Wait until there are models, and give their names to `use`. */
export async function readModels(use) {
  try {
    const ready = await fetch("ready");
    if (ready.status === 503) {
      say(Object.entries((await ready.json()).models).map(([name, state]) => `${name}: ${state}`).join(", "));
      setTimeout(() => readModels(use), 1000);
      return;
    }
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await told(response));
    models = (await response.json()).data;
    say("");
    use(models.map((one) => one.id));
  } catch (error) {
    say(error instanceof TypeError ? "The server is not there." : error.message);
    if (error instanceof TypeError) setTimeout(() => readModels(use), 3000);
  }
}

/** The tokens of a text; null where the server does not say. */
export async function count(text) {
  try {
    const body = JSON.stringify({ model: $("model").value, content: text });
    const response = await fetch("tokenize", { method: "POST", headers: headers(), body });
    return response.ok ? (await response.json()).count : null;
  } catch {
    return null;
  }
}

/** The chunks of an answer, as they come. Throws what the server says against it, and an AbortError. */
export async function* chunks(request, signal) {
  const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(request), signal });
  if (!response.ok) throw new Error(await told(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let whole = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") whole = true;
      else if (part.startsWith("data: ")) {
        const chunk = JSON.parse(part.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        yield chunk;
      }
    }
  }
  if (!whole) throw new Error("The server went away.");
}

async function told(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** A message as the API has it. */
export function sent({ role, content, thought, calls, files, images, id, name }) {
  if (role === "tool") return { role, content, tool_call_id: id, name };
  if (role === "user") {
    const text = [...(files ?? []).map(quoted), content].filter(Boolean).join("\n\n");
    if (!images?.length) return { role, content: text };
    const parts = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
    return { role, content: text ? [...parts, { type: "text", text }] : parts };
  }
  const more = calls?.length ? { tool_calls: calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })) } : {};
  return { role, content, ...(thought ? { reasoning_content: thought } : {}), ...more };
}

// A file's text in a fence that it does not have itself.
function quoted({ name, text }) {
  let fence = "```";
  while (text.includes(fence)) fence += "`";
  return `${name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
}
