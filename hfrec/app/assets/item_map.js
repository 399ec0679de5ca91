// Draws the items as points, tells their titles on hover and marks those of the lists. Runs as the body of a function
// whose arguments are `element`, `props`, `server` and `watch` (js_on_load of gr.HTML). Titles are set as text, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8; // of the style sheet; further categories share one more
const svg = element.querySelector("svg");
const tip = element.querySelector(".tip");
const legend = element.querySelector(".legend");
const note = element.querySelector(".note");
const maps = {};
let drawn = null, points = new Map();

function make(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function draw(map) {
  points = new Map();
  svg.replaceChildren(...map.items.map((item) => {
    const dot = make("circle", { cx: item.x, cy: item.y, r: 3.2, class: `dot c${Math.min(item.category, COLOURS)}` });
    dot.append(make("title", {}, item.title));
    dot.dataset.title = item.title;
    dot.dataset.note = item.note;
    points.set(item.item_id, dot);
    return dot;
  }));
  svg.append(make("g", { class: "marks" }));
  legend.replaceChildren(...map.categories.map((name, place) => {
    const row = document.createElement("li");
    row.className = `c${Math.min(place, COLOURS)}`;
    row.textContent = name;
    return row;
  }));
  note.textContent = map.note;
}

function highlight(history, recommended) {
  for (const dot of points.values()) dot.classList.remove("history", "recommended");
  history.forEach((item) => points.get(item)?.classList.add("history"));
  const marks = svg.querySelector(".marks");
  marks.replaceChildren();
  recommended.forEach((item, place) => {
    const dot = points.get(item);
    if (!dot) return;
    dot.classList.add("recommended");
    const [x, y] = [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))];
    marks.append(make("circle", { cx: x, cy: y, r: 9 }), make("text", { x, y: y + 3.6 }, String(place + 1)));
  });
}

async function update() {
  const wanted = JSON.parse(props.value).label;
  if (drawn !== wanted) {
    if (!(wanted in maps)) {
      note.textContent = "The map is being drawn.";
      maps[wanted] = await server.draw(wanted);
    }
    if (JSON.parse(props.value).label !== wanted) return; // another one was asked for meanwhile
    draw(maps[wanted]);
    drawn = wanted;
  }
  const now = JSON.parse(props.value);
  highlight(now.history, now.recommended);
}

svg.addEventListener("pointermove", (event) => {
  const dot = event.target.closest(".dot");
  tip.hidden = !dot;
  if (!dot) return;
  tip.firstElementChild.textContent = dot.dataset.title;
  tip.lastElementChild.textContent = dot.dataset.note;
  const box = element.querySelector(".canvas").getBoundingClientRect();
  const left = Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth - 4);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${event.clientY - box.top + 14}px`;
});
svg.addEventListener("pointerleave", () => { tip.hidden = true; });
watch("value", update);
update();
