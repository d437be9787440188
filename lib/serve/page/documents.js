// The window in which a document is read, with the passage that was cited marked.

import { readDocument } from "./api.js";
import { documentText, element } from "./render.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
let opened = 0; // documents so far: what comes late may not take the place of the next

export const openPassage = (passage) => openDocument(passage.document, passage.id, passage);

export async function openDocument(id, passageId, known) {
  const asked = (opened += 1);
  $("source-title").textContent = known?.heading || id;
  $("source-place").textContent = id;
  $("source-text").textContent = known?.text ?? "…";
  if (!$("source").open) $("source").showModal();
  try {
    const found = await readDocument(id, store.key.get());
    if (asked !== opened) return;
    const chosen = found.passages.find((one) => one.id === passageId);
    $("source-title").textContent = chosen?.heading || id;
    $("source-place").textContent = chosen ? `${id}, from character ${chosen.start.toLocaleString("en")}` : id;
    $("source-text").replaceChildren(documentText(found.passages, chosen));
    showMark();
  } catch (error) {
    if (asked !== opened) return;
    const note = element("p", { className: "error" }, error.message);
    note.setAttribute("role", "alert");
    $("source-text").prepend(note);
  }
}

// In the middle; where it is longer than what can be seen, from its beginning.
function showMark() {
  const mark = $("source-text").querySelector("mark");
  const isLong = mark?.getBoundingClientRect().height > $("source-text").clientHeight;
  mark?.scrollIntoView({ block: isLong ? "start" : "center" });
}
