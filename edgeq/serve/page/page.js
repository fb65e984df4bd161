// A page to chat on: streams answers of /v1/chat/completions, keeps chats in this browser. What a model says is put
// into the page as text alone, never as markup.

const $ = (id) => document.getElementById(id);
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), text === undefined ? {} : { textContent: text }, more);

// ---- Chats, each under a key of its own in localStorage: {id, title, at, messages: [{role, content, thought?, note?}]}

const PREFIX = "edgeq.chat.";
const FIELDS = ["system", "temperature", "top_p", "max_tokens", "key"];

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
    chat.messages.every((m) => ["user", "assistant"].includes(m?.role) && typeof m.content === "string");
}

function keep(chat) {
  chat.at = Date.now();
  chat.title = (chat.messages[0]?.content ?? "").slice(0, 60) || "Empty";
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

function markdown(text, into, thought) {
  const open = into.querySelector("details")?.open ?? false;
  into.replaceChildren();
  if (thought) {
    const fold = make("details", undefined, { open });
    fold.append(make("summary", "Thinking"), make("span", thought));
    into.append(fold);
  }
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
  if (message.role === "user") body.textContent = message.content;
  else markdown(message.content, body, message.thought);
  const tools = make("div", undefined, { className: "tools" });
  const tool = (name, act) => tools.append(make("button", name, { type: "button", onclick: act }));
  tool("Copy", () => navigator.clipboard?.writeText(message.content));
  if (message.role === "user") tool("Edit", () => edit(index));
  else tool("Again", () => again(index));
  if (message.note) tools.append(make("span", message.note, { className: message.failed ? "failed" : "" }));
  node.append(body, tools);
  return node;
}

// A change branches off: the chat as it was is kept.
function branch(messages) {
  chat = { ...fresh(), messages };
}

function edit(index) {
  if (asking) return;
  $("text").value = chat.messages[index].content;
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

async function answer() {
  const own = chat; // whichever is looked at meanwhile
  const message = { role: "assistant", content: "" };
  const talk = own.messages.map(({ role, content }) => ({ role, content }));
  if ($("system").value.trim()) talk.unshift({ role: "system", content: $("system").value });
  const request = { model: $("model").value, messages: talk, stream: true, stream_options: { include_usage: true } };
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
    markdown(message.content, log.lastChild.querySelector(".body"), message.thought);
    if (follows) log.scrollTop = log.scrollHeight;
  };
  say("Reading the prompt …");
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(request), signal: asking.signal });
    if (!response.ok) throw new Error(await told(response));
    for await (const chunk of frames(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices?.[0];
      const { content, reasoning_content: thought } = choice?.delta ?? {};
      if (content || thought) {
        first ||= performance.now() - began;
        if (thought) message.thought = (message.thought ?? "") + thought;
        if (content) message.content += content;
        if (!due) { due = true; requestAnimationFrame(paint); }
        say(content ? "Writing …" : "Thinking …");
      }
      timings = chunk.timings ?? timings;
      usage = chunk.usage ?? usage;
      if (choice?.finish_reason === "length") message.note = "cut at the limit of tokens";
    }
    message.note = [message.note, note(usage, timings, first)].filter(Boolean).join(" · ");
    say("");
  } catch (error) {
    const stopped = error.name === "AbortError";
    message.note = stopped ? "stopped" : error.message;
    message.failed = !stopped;
    say("");
  }
  asking = null;
  busy(false);
  keep(own);
  if (chat === own) showLog();
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

function fit() {
  const text = $("text");
  text.rows = Math.min(12, Math.max(1, text.value.split("\n").length));
}

function openSide(yes) {
  $("side").classList.toggle("open", yes);
  $("menu").setAttribute("aria-expanded", String(yes));
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || asking) return;
  $("text").value = "";
  fit();
  chat.messages.push({ role: "user", content: text });
  answer();
};
$("text").oninput = fit;
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
