// What the settings hold: kept in localStorage, where the browser has one, and what of it a request says.

import { $ } from "./dom.js";

const FIELDS = ["system", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed", "tools", "theme", "key"];
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];

export function recall(name) {
  try {
    return localStorage.getItem(`edgeq.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`edgeq.${name}`, value);
  } catch { /* it is forgotten with the page */ }
}

/** Fill the settings in; `changed` hears of each that changes. */
export function begin(changed) {
  for (const name of FIELDS) {
    $(name).value = recall(name) ?? $(name).value;
    $(name).onchange = () => {
      remember(name, $(name).value);
      if (name === "theme") paint();
      changed(name);
    };
  }
  $("thinks").checked = recall("thinks") !== "no";
  $("thinks").onchange = () => remember("thinks", $("thinks").checked ? "yes" : "no");
  $("settings").onsubmit = (event) => event.preventDefault();
  paint();
}

function paint() {
  document.documentElement.dataset.theme = $("theme").value;
}

/** What a request says beside its messages. Throws for tools that are no JSON. */
export function asked() {
  const request = { model: $("model").value };
  const tools = givenTools();
  if (tools.length) request.tools = tools;
  if (!$("thinks").checked) request.enable_thinking = false;
  for (const name of NUMBERS) if ($(name).value) request[name] = Number($(name).value);
  return request;
}

function givenTools() {
  const text = $("tools").value.trim();
  if (!text) return [];
  try {
    const tools = JSON.parse(text);
    return Array.isArray(tools) ? tools : [tools];
  } catch {
    throw new Error("The tools in the settings are no JSON.");
  }
}
