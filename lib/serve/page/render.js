// Markdown to elements that can do no harm, with citations that can be opened.
//
// What a model writes may come from a document that somebody else wrote. So there are no images (their addresses would
// carry words of the conversation away), no styles, no forms, and every link says where it leads.

import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.js";

const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

// HTML is shown as the text that it is, a picture as what it is said to show.
const marked = new Marked({
  gfm: true, breaks: true,
  renderer: { html: ({ text }) => escaped(text), image: ({ text }) => escaped(text) },
});

// And should a way around that be found, nothing but this is let through.
const ALLOWED = {
  ALLOWED_TAGS: ["p", "br", "strong", "em", "del", "code", "pre", "ul", "ol", "li", "blockquote", "h1", "h2", "h3", "h4",
    "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "hr", "a", "sup", "sub"],
  ALLOWED_ATTR: ["href", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Args: passages: those that [1], [2], ... may open; open: is given the one that the reader chose.
export function markdown(text, passages, open) {
  const fragment = DOMPurify.sanitize(marked.parse(text), ALLOWED);
  for (const link of fragment.querySelectorAll("a[href]")) {
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow", title: link.href });
    if (link.textContent !== link.href) link.append(element("span", { className: "small" }, ` (${link.host || "mail"})`));
  }
  for (const dead of fragment.querySelectorAll("a:not([href])")) dead.replaceWith(...dead.childNodes);
  for (const block of fragment.querySelectorAll("pre")) {
    const copy = element("button", { type: "button", className: "plain copy" }, "Copy");
    copy.addEventListener("click", () => copied(copy, block.querySelector("code")?.textContent ?? ""));
    block.append(copy);
  }
  if (passages?.length) cite(fragment, passages, open);
  return fragment;
}

export async function copied(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

function cite(fragment, passages, open) {
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (!walker.currentNode.parentElement?.closest("code, a")) texts.push(walker.currentNode);
  for (const node of texts) {
    const parts = node.data.split(/\[(\d{1,3})\]/);
    if (parts.length === 1) continue;
    node.replaceWith(...parts.map((part, place) => {
      if (place % 2 === 0) return part;
      const passage = passages.find((one) => one.number === Number(part));
      return passage ? citation(passage, open) : `[${part}]`;
    }));
  }
}

function citation(passage, open) {
  const label = `Source ${passage.number}: ${passage.heading || passage.document}`;
  const button = element("button", { type: "button", className: "cite", title: label }, String(passage.number));
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => open(passage));
  return button;
}

// The passages of a document as its text, with the one that was chosen marked. Passages overlap, or leave gaps.
export function documentText(passages, chosen) {
  const fragment = document.createDocumentFragment();
  let place = 0;
  for (const passage of passages) {
    if (passage.end <= place) continue;
    if (passage.start > place && place > 0) fragment.append("\n\n");
    const from = Math.max(place, passage.start);
    for (const [start, end] of cut(from, passage.end, chosen)) {
      const text = [...passage.text].slice(start - passage.start, end - passage.start).join("");
      const inside = chosen && start >= chosen.start && end <= chosen.end;
      if (inside && fragment.lastChild?.nodeName === "MARK") fragment.lastChild.append(text);
      else fragment.append(inside ? element("mark", {}, text) : text);
    }
    place = passage.end;
  }
  return fragment;
}

function cut(from, to, chosen) {
  const edges = [from, chosen?.start, chosen?.end, to].filter((edge) => edge >= from && edge <= to);
  edges.sort((a, b) => a - b);
  return edges.slice(1).map((edge, place) => [edges[place], edge]).filter(([start, end]) => end > start);
}
