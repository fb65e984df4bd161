// Markdown as nodes. A hostile text stays harmless three times over: markup and images in it are shown as text and
// links, DOMPurify lets these tags and attributes alone through, and the page's policy runs and fetches nothing else.

import { button, copy, make } from "./dom.js";
import { Lexer, Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";

const LONGEST = 6000; // characters of a paragraph in which marks are looked for: that can take their square
const COLOURED = 50000; // characters of code that are highlighted

const TAGS = "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong del sub sup kbd a table thead tbody tr th td span";
const RULES = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ADD_URI_SAFE_ATTR: ["start", "align"], // values of all others must look like the addresses below
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};
DOMPurify.addHook("uponSanitizeAttribute", (node, given) => {
  if (given.attrName === "class" && !/^(?:language-\S+|hljs[\w -]*)$/.test(given.attrValue)) given.keepAttr = false;
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A" && node.hasAttribute("href")) Object.assign(node, { target: "_blank", rel: "noopener noreferrer" });
});

const SIGNS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (sign) => SIGNS[sign]);
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text, block }) =>
      /^<\/?(?:br|su[bp]|kbd)\s*\/?>$/i.test(text.trim()) ? text : block ? `<p>${escaped(text.trimEnd()).replaceAll("\n", "<br>")}</p>` : escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

class Blocks extends Lexer {
  inlineTokens(text, tokens = []) {
    if (text.length <= LONGEST) return super.inlineTokens(text, tokens);
    tokens.push({ type: "text", raw: text, text, escaped: false });
    return tokens;
  }
}

/** The blocks of a text, one after the other; as a paragraph where it nests deeper than can be read. */
function blocks(text) {
  try {
    return new Blocks(marked.defaults).lex(text).map((token) => ({ token, html: marked.parser([token]) }));
  } catch {
    return [{ token: { type: "paragraph", raw: text }, html: `<p>${escaped(text)}</p>` }];
  }
}

/** Markdown that grows: what is finished is left alone, the last block alone is made anew. */
export class Markdown {
  #into;
  #text = ""; // what is shown of it
  #done = 0; // characters of blocks that are finished,
  #nodes = 0; // their nodes,
  #html = ""; // and what these are made of

  constructor(into) {
    this.#into = into;
  }

  /** Show a text, which goes on from what was shown before; `ended` where no more comes. */
  show(text, ended) {
    text = text.replace(/\r\n?/g, "\n");
    if (!text.startsWith(this.#text)) this.#begin();
    this.#text = text;
    const html = this.#render();
    // What comes late may change what came first, as the address of a link does.
    if (!ended || !this.#done || html === blocks(text).map((one) => one.html).join("")) return;
    this.#begin();
    this.#render();
  }

  #begin() {
    this.#done = this.#nodes = 0;
    this.#html = "";
  }

  #render() {
    const rest = this.#text.slice(this.#done);
    const found = blocks(rest);
    const lengths = found.map(({ token }) => token.raw.length);
    const sum = (parts) => parts.reduce((all, one) => all + one, 0);
    while (this.#into.childNodes.length > this.#nodes) this.#into.lastChild.remove();
    // The last block may still grow, by what follows an empty line, too; while it is no more than what begins an item,
    // it may yet belong to the list before it.
    const last = sum(lengths) === rest.length ? found.findLastIndex(({ token }) => token.type !== "space") : 0;
    const settled = last > 0 && !/^\s*(?:[-+*]|\d{1,9}[.)]?)?[ \t]*$/.test(rest.slice(sum(lengths.slice(0, last))));
    let shown = this.#html;
    found.forEach(({ html }, i) => {
      if (i === last && settled) {
        this.#nodes = this.#into.childNodes.length;
        this.#done += sum(lengths.slice(0, i));
        this.#html = shown;
      }
      shown += html;
      if (html) this.#into.append(safe(html));
    });
    return shown;
  }
}

function safe(html) {
  const nodes = DOMPurify.sanitize(html, RULES);
  for (const pre of [...nodes.querySelectorAll("pre")]) frame(pre);
  for (const table of [...nodes.querySelectorAll("table")]) {
    const wide = make("div", undefined, { className: "wide", tabIndex: 0 });
    table.replaceWith(wide);
    wide.append(table);
  }
  return nodes;
}

// A block of code with its language's name, what copies it, and colours.
function frame(pre) {
  const box = make("div", undefined, { className: "frame" });
  const bar = make("div", undefined, { className: "bar" });
  const code = pre.querySelector("code") ?? pre;
  const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  bar.append(make("span", language), button("Copy", (event) => copy(code.textContent.replace(/\n$/, ""), event.currentTarget)));
  pre.tabIndex = 0; // so that keys scroll it
  pre.replaceWith(box);
  box.append(bar, pre);
  if (language) colour(code, language);
}

let highlighter; // of highlight.js, once it is there
let loading;

function colour(code, language) {
  const text = code.textContent;
  if (text.length > COLOURED) return;
  if (!highlighter) {
    loading ??= import("./vendor/highlight.min.js").then((module) => { highlighter = module.default; }, () => { loading = undefined; });
    loading.then(() => { if (highlighter && code.textContent === text) colour(code, language); });
    return;
  }
  if (!highlighter.getLanguage(language)) return;
  const html = highlighter.highlight(text, { language, ignoreIllegals: true }).value;
  code.replaceChildren(DOMPurify.sanitize(html, RULES));
}
