// A page to chat on: streams answers of /v1/chat/completions, keeps chats in this browser. What a model says is put
// into the page as text alone, never as markup.

const $ = (id) => document.getElementById(id);
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), text === undefined ? {} : { textContent: text }, more);

// ---- Chats, each under a key of its own in localStorage: {id, title, at, messages: [{role, content, thought?,
// calls?, files?, note?}]}; what a tool said has the role "tool" and the call's id, an attachment a name and its text

const PREFIX = "edgeq.chat.";
const FIELDS = ["system", "temperature", "top_p", "max_tokens", "tools", "key"];

function readChats() {
  const found = [];
  for (let i = 0; i < localStorage.length; i++) {
    const key = localStorage.key(i);
    if (!key.startsWith(PREFIX)) continue;
    try {
      const chat = JSON.parse(localStorage.getItem(key));
      if (isChat(chat)) found.push(chat);
    } catch { /* what cannot be read is none */ }
  }
  return found.sort((a, b) => b.at - a.at);
}

function isChat(chat) {
  return chat && typeof chat.id === "string" && Array.isArray(chat.messages) &&
    chat.messages.every((m) => ["user", "assistant", "tool"].includes(m?.role) && typeof m.content === "string" &&
      (m.thought === undefined || typeof m.thought === "string") && listed(m.calls, "id", "name", "arguments") && listed(m.files, "name", "text"));
}

// A list of objects with these texts, or nothing.
function listed(value, ...keys) {
  return value === undefined || (Array.isArray(value) && value.every((one) => keys.every((key) => typeof one?.[key] === "string")));
}

function keep(chat) {
  chat.at = Date.now();
  chat.title = (chat.messages[0]?.content || chat.messages[0]?.files?.[0].name || "").slice(0, 60) || "Empty";
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
  } catch {
    say("This browser has no room left for chats: delete some, or export them.");
  }
  showChats();
}

const fresh = () => ({ id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), at: 0, messages: [] });

let chat = readChats()[0] ?? fresh();
let asking = null; // the AbortController of the answer under way

// ---- Markdown, as nodes: what models use of it

function folded(name, text, open, className) {
  const fold = make("details", undefined, { open, className });
  fold.append(make("summary", name), make("span", text));
  return fold;
}

// An answer: what was thought, the text, the tools that are called. What was unfolded stays so.
function fill(into, message) {
  const open = [...into.querySelectorAll(":scope > details")].map((one) => one.open);
  into.replaceChildren();
  if (message.thought) into.append(folded("Thinking", message.thought, open.shift() ?? false, "thought"));
  markdown(message.content, into);
  for (const call of message.calls ?? []) into.append(folded(`Calls ${call.name}`, pretty(call.arguments), open.shift() ?? false, "call"));
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 1);
  } catch {
    return json;
  }
}

function markdown(text, into) {
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const fence = /^\s*(```+|~~~+)/.exec(line);
    if (fence) {
      const code = [];
      for (i++; i < lines.length && !lines[i].trim().startsWith(fence[1]); i++) code.push(lines[i]);
      i++;
      const block = make("pre");
      block.append(make("code", code.join("\n")));
      into.append(block);
      continue;
    }
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    if (heading) {
      into.append(inline(heading[2], make(`h${heading[1].length}`)));
      i++;
    } else if (/^\s*>/.test(line)) {
      const quoted = [];
      for (; i < lines.length && /^\s*>/.test(lines[i]); i++) quoted.push(lines[i].replace(/^\s*> ?/, ""));
      into.append(inline(quoted.join("\n"), make("blockquote")));
    } else if (item(line)) {
      i = list(lines, i, into);
    } else if (!line.trim()) {
      i++;
    } else {
      const words = [];
      for (; i < lines.length && lines[i].trim() && !/^\s*(```|~~~|>|#{1,6}\s)/.test(lines[i]) && !item(lines[i]); i++) words.push(lines[i]);
      into.append(inline(words.join("\n"), make("p")));
    }
  }
}

const item = (line) => /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)/.exec(line);

function list(lines, i, into) {
  const first = item(lines[i]);
  const ordered = /\d/.test(first[2]);
  const node = make(ordered ? "ol" : "ul");
  if (ordered) node.start = parseInt(first[2], 10);
  into.append(node);
  while (i < lines.length) {
    const found = item(lines[i]);
    if (!found || found[1].length < first[1].length || (found[1].length === first[1].length && /\d/.test(found[2]) !== ordered)) break;
    if (found[1].length > first[1].length && node.lastChild) {
      i = list(lines, i, node.lastChild);
    } else {
      node.append(inline(found[3], make("li")));
      i++;
      while (i + 1 < lines.length && !lines[i].trim() && item(lines[i + 1])) i++; // items that are set apart
    }
  }
  return i;
}

const LONGEST = 10000; // characters of a paragraph in which marks are looked for: the search must end
const INLINE = /(`{1,2})([\s\S]+?)\1|\*\*([\s\S]+?)\*\*|\*(?!\s)([^*\n]+?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+|mailto:[^\s)]+)\)/;

function inline(text, into) {
  let found;
  while (text.length <= LONGEST && (found = INLINE.exec(text))) {
    into.append(text.slice(0, found.index));
    text = text.slice(found.index + found[0].length);
    if (found[1]) into.append(make("code", found[2]));
    else if (found[3]) into.append(inline(found[3], make("strong")));
    else if (found[4]) into.append(inline(found[4], make("em")));
    else into.append(make("a", found[5], { href: found[6], target: "_blank", rel: "noopener noreferrer" }));
  }
  into.append(text);
  return into;
}

// ---- What is shown

function say(text) {
  $("state").textContent = text;
}

function showChats() {
  const wanted = $("find").value.toLowerCase();
  const rows = readChats()
    .filter((one) => !wanted || one.messages.some((m) => m.content.toLowerCase().includes(wanted)))
    .map((one) => {
      const row = make("div", undefined, { className: "chat" });
      if (one.id === chat.id) row.setAttribute("aria-current", "true");
      const open = make("button", one.title, { type: "button", title: one.title });
      open.onclick = () => choose(one);
      const drop = make("button", "×", { type: "button", title: "Delete" });
      drop.setAttribute("aria-label", `Delete ${one.title}`);
      drop.onclick = () => {
        if (!confirm(`Delete "${one.title}"?`)) return;
        localStorage.removeItem(PREFIX + one.id);
        if (one.id === chat.id) choose(readChats()[0] ?? fresh());
        showChats();
      };
      row.append(open, drop);
      return row;
    });
  $("chats").replaceChildren(...rows);
}

function choose(one) {
  asking?.abort();
  chat = one;
  openSide(false);
  showLog();
  showChats();
}

function showLog() {
  $("log").replaceChildren(...chat.messages.map(shown));
  $("log").scrollTop = $("log").scrollHeight;
}

function shown(message, index) {
  const node = make("article", undefined, { className: message.role });
  const body = make("div", undefined, { className: "body" });
  if (message.role === "tool") body.append(folded(`${message.name ?? "The tool"} said`, message.content, false, "call"));
  else if (message.role === "user") body.append(message.content, ...(message.files ?? []).map((file) => folded(file.name, file.text, false, "file")));
  else fill(body, message);
  const tools = make("div", undefined, { className: "tools" });
  const tool = (name, act) => tools.append(make("button", name, { type: "button", onclick: act }));
  tool("Copy", () => navigator.clipboard?.writeText(message.content));
  if (message.role === "user") tool("Edit", () => edit(index));
  else if (message.role === "assistant") tool("Again", () => again(index));
  if (message.note) tools.append(make("span", message.note, { className: message.failed ? "failed" : "" }));
  node.append(body, tools);
  if (index === chat.messages.length - 1 && message.calls?.length && !asking) node.append(results(message.calls));
  return node;
}

// Where you say what the tools say: the page runs none.
function results(calls) {
  const form = make("form", undefined, { className: "results" });
  const fields = calls.map((call) => make("textarea", undefined, { rows: 1, required: true, placeholder: `What ${call.name} says` }));
  fields.forEach((field, i) => field.setAttribute("aria-label", `What ${calls[i].name} says`));
  form.append(...fields, make("button", calls.length > 1 ? "Send results" : "Send result", { type: "submit" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    if (asking) return;
    calls.forEach((call, i) => chat.messages.push({ role: "tool", id: call.id, name: call.name, content: fields[i].value }));
    answer();
  };
  return form;
}

// A change branches off: the chat as it was is kept.
function branch(messages) {
  chat = { ...fresh(), messages };
}

function edit(index) {
  if (asking) return;
  $("text").value = chat.messages[index].content;
  attached = chat.messages[index].files ?? [];
  showAttached();
  branch(chat.messages.slice(0, index));
  showLog();
  fit();
  $("text").focus();
}

function again(index) {
  if (asking) return;
  branch(chat.messages.slice(0, index));
  answer();
}

// ---- Asking

const headers = () => ({ "Content-Type": "application/json", ...($("key").value ? { Authorization: `Bearer ${$("key").value}` } : {}) });

async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

async function told(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// A message as the API has it.
function sent({ role, content, thought, calls, files, id, name }) {
  if (role === "tool") return { role, content, tool_call_id: id, name };
  if (role === "user") return { role, content: [...(files ?? []).map((file) => `${file.name}:\n\`\`\`\n${file.text}\n\`\`\``), content].join("\n\n") };
  const more = calls?.length ? { tool_calls: calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })) } : {};
  return { role, content, ...(thought ? { reasoning_content: thought } : {}), ...more };
}

// The tools of the settings; null where these are no JSON.
function givenTools() {
  const text = $("tools").value.trim();
  if (!text) return [];
  try {
    const tools = JSON.parse(text);
    return Array.isArray(tools) ? tools : [tools];
  } catch {
    return null;
  }
}

async function answer() {
  const own = chat; // whichever is looked at meanwhile
  const message = { role: "assistant", content: "" };
  const talk = own.messages.map(sent);
  if ($("system").value.trim()) talk.unshift({ role: "system", content: $("system").value });
  const request = { model: $("model").value, messages: talk, stream: true, stream_options: { include_usage: true }, return_progress: true };
  const tools = givenTools();
  if (tools?.length) request.tools = tools;
  if (!$("thinks").checked) request.enable_thinking = false;
  for (const name of ["temperature", "top_p", "max_tokens"]) if ($(name).value) request[name] = Number($(name).value);
  own.messages.push(message);
  showLog();
  const log = $("log");
  asking = new AbortController();
  busy(true);
  const began = performance.now();
  let first = 0, usage = null, timings = null, due = false;
  const paint = () => {
    due = false;
    if (chat !== own || !asking) return;
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    fill(log.lastChild.querySelector(".body"), message);
    if (follows) log.scrollTop = log.scrollHeight;
  };
  say("Reading the prompt …");
  try {
    if (tools === null) throw new Error("The tools in the settings are no JSON.");
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(request), signal: asking.signal });
    if (!response.ok) throw new Error(await told(response));
    for await (const chunk of frames(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices?.[0];
      const { content, reasoning_content: thought, tool_calls: calls } = choice?.delta ?? {};
      const far = chunk.prompt_progress;
      if (far) say(`Reading the prompt: ${far.processed} of ${far.total} tokens`);
      for (const part of calls ?? []) {
        message.calls ??= [];
        const call = (message.calls[part.index] ??= { id: part.id ?? "", name: "", arguments: "" });
        call.name += part.function?.name ?? "";
        call.arguments += part.function?.arguments ?? "";
      }
      if (content || thought || calls) {
        first ||= performance.now() - began;
        if (thought) message.thought = (message.thought ?? "") + thought;
        if (content) message.content += content;
        if (!due) { due = true; requestAnimationFrame(paint); }
        say(calls ? "Calling …" : content ? "Writing …" : "Thinking …");
      }
      timings = chunk.timings ?? timings;
      usage = chunk.usage ?? usage;
      if (choice?.finish_reason === "length") {
        message.note = "cut at the limit of tokens";
        if (message.calls) message.calls = message.calls.filter((call) => isJson(call.arguments));
      }
    }
    message.note = [message.note, note(usage, timings, first)].filter(Boolean).join(" · ");
    say("");
  } catch (error) {
    const stopped = error.name === "AbortError";
    if (message.calls) message.calls = message.calls.filter((call) => isJson(call.arguments)); // less what was cut off
    message.note = stopped ? "stopped" : error.message;
    message.failed = !stopped;
    say("");
  }
  asking = null;
  busy(false);
  keep(own);
  if (chat === own) showLog();
}

function isJson(text) {
  try {
    return JSON.parse(text) !== undefined;
  } catch {
    return false;
  }
}

function note(usage, timings, first) {
  if (!usage || !timings) return "";
  const speed = timings.predicted_per_second ? `${timings.predicted_per_second.toFixed(1)} tokens/s` : "";
  const full = context ? ` of ${context}` : "";
  return [`${usage.total_tokens}${full} tokens`, speed, `first after ${(first / 1000).toFixed(2)} s`].filter(Boolean).join(" · ");
}

function busy(yes) {
  $("send").hidden = yes;
  $("stop").hidden = !yes;
  $("log").setAttribute("aria-busy", String(yes));
}

// ---- The page's own life

let context = 0;
let models = [];

async function readModels() {
  try {
    const ready = await fetch("ready");
    if (ready.status === 503) {
      const { models } = await ready.json();
      say(Object.entries(models).map(([name, state]) => `${name}: ${state}`).join(", "));
      setTimeout(readModels, 1000);
      return;
    }
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await told(response));
    models = (await response.json()).data;
    const before = $("model").value;
    $("model").replaceChildren(...models.map((one) => make("option", one.id, { value: one.id })));
    if (models.some((one) => one.id === before)) $("model").value = before;
    noteContext();
    say("");
  } catch (error) {
    say(error instanceof TypeError ? "The server is not there." : error.message);
    if (error instanceof TypeError) setTimeout(readModels, 3000);
  }
}

const noteContext = () => { context = models.find((one) => one.id === $("model").value)?.max_model_len ?? 0; };

// ---- Attachments: text files, each before the message

const LARGEST = 4 << 20;
let attached = [];

async function attach(files) {
  for (const file of files) {
    const text = file.size > LARGEST ? null : await file.text();
    if (text === null || text.includes("\0") || text.includes("\ufffd")) say(`${file.name} is no text that can be attached.`);
    else attached.push({ name: file.name, text });
  }
  showAttached();
}

function showAttached() {
  const rows = attached.map((file, i) => {
    const size = make("span", file.tokens === undefined ? "" : tokensOf(file.tokens), { className: "size" });
    const drop = make("button", "×", { type: "button", title: `Remove ${file.name}`, onclick: () => { attached.splice(i, 1); showAttached(); } });
    drop.setAttribute("aria-label", `Remove ${file.name}`);
    if (file.tokens === undefined) count(file).then(() => { size.textContent = tokensOf(file.tokens); });
    const row = make("div");
    row.append(make("span", file.name, { className: "name" }), size, drop);
    return row;
  });
  $("attached").replaceChildren(...rows);
  $("attached").hidden = !rows.length;
}

const tokensOf = (count) => count === null ? "" : `${count} tokens${context ? ` of ${context}` : ""}`;

async function count(file) {
  try {
    const body = JSON.stringify({ model: $("model").value, content: file.text });
    const response = await fetch("tokenize", { method: "POST", headers: headers(), body });
    file.tokens = response.ok ? (await response.json()).tokens.length : null;
  } catch {
    file.tokens = null;
  }
}

function fit() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`; // and its borders
}

function openSide(yes) {
  $("side").classList.toggle("open", yes);
  $("menu").setAttribute("aria-expanded", String(yes));
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if ((!text && !attached.length) || asking) return;
  const files = attached.map(({ name, text }) => ({ name, text }));
  $("text").value = "";
  attached = [];
  showAttached();
  fit();
  chat.messages.push({ role: "user", content: text, ...(files.length ? { files } : {}) });
  answer();
};
$("text").oninput = fit;
$("attach").onclick = () => $("files").click();
$("files").onchange = async () => { await attach($("files").files); $("files").value = ""; };
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => { event.preventDefault(); attach(event.dataTransfer.files); };
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
};
document.onkeydown = (event) => {
  if (event.key === "Escape") asking ? asking.abort() : openSide(false);
};
$("stop").onclick = () => asking?.abort();
$("new").onclick = () => { choose(fresh()); $("text").focus(); };
$("find").oninput = showChats;
$("model").onchange = noteContext;
$("menu").onclick = () => openSide(!$("side").classList.contains("open"));
$("main").addEventListener("click", (event) => { if (!event.target.closest("#menu")) openSide(false); });
$("settings").onsubmit = (event) => event.preventDefault();
$("set").onclick = () => {
  $("settings").hidden = !$("settings").hidden;
  $("set").setAttribute("aria-expanded", String(!$("settings").hidden));
};
for (const name of FIELDS) {
  $(name).value = localStorage.getItem(`edgeq.${name}`) ?? "";
  $(name).onchange = () => {
    localStorage.setItem(`edgeq.${name}`, $(name).value);
    if (name === "key") readModels();
  };
}
$("thinks").checked = localStorage.getItem("edgeq.thinks") !== "no";
$("thinks").onchange = () => localStorage.setItem("edgeq.thinks", $("thinks").checked ? "yes" : "no");
$("export").onclick = () => {
  const url = URL.createObjectURL(new Blob([JSON.stringify(readChats(), null, 1)], { type: "application/json" }));
  make("a", undefined, { href: url, download: "edgeq-chats.json" }).click();
  URL.revokeObjectURL(url);
};
$("import").onclick = () => $("file").click();
$("file").onchange = async () => {
  try {
    const found = JSON.parse(await $("file").files[0].text()).filter(isChat);
    for (const one of found.reverse()) keep(one);
    say(`${found.length} chats imported`);
  } catch {
    say("This file holds no chats.");
  }
  $("file").value = "";
};

showLog();
showChats();
readModels();
