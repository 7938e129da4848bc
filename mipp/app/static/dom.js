// Elements are made of texts and known attributes alone: what owners and servers wrote never becomes markup.

export const $ = (id) => document.getElementById(id);

/** An element: `el("p", { class: "note" }, "text", other)`. Functions become listeners; false and null are left out. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A stranger's text: it keeps its own direction, and cannot turn that of what stands beside it. */
export const told = (text) => el("bdi", {}, text);

export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter(Boolean));
}

/** Says something to everybody, screen readers too; `bad` for failures. */
export function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

export function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = count / 1000, unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toPrecision(3)} ${units[unit]}`;
}

export const number = (value) => Number(value).toPrecision(6).replace(/\.?0+$/, "");

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
