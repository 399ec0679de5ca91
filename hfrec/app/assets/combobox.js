// A search field after the ARIA pattern "combobox with list autocomplete". Runs as the body of a function whose
// arguments are `element`, `props`, `trigger` and `server` (js_on_load of gr.HTML). Answers are text, never HTML.
const input = element.querySelector("input");
const list = element.querySelector("ul");
const status = element.querySelector("[role=status]");
const keeps = Boolean(props.value); // a field that starts with a value shows what was chosen last
input.value = props.value || "";
let options = [], active = -1, asked = 0, timer = null;

function mark(place) {
  active = place;
  [...list.children].forEach((row, index) => row.setAttribute("aria-selected", String(index === place)));
  if (place >= 0) {
    input.setAttribute("aria-activedescendant", list.children[place].id);
    list.children[place].scrollIntoView({ block: "nearest" });
  } else {
    input.removeAttribute("aria-activedescendant");
  }
}

function close() {
  list.hidden = true;
  input.setAttribute("aria-expanded", "false");
  mark(-1);
}

function choose(place) {
  const option = options[place];
  if (!option) return;
  input.value = keeps ? option.title : "";
  options = [];
  close();
  status.textContent = `${option.title} chosen`;
  trigger("select", { item_id: option.item_id });
}

function show(found) {
  options = found;
  list.replaceChildren(...found.map((option, place) => {
    const row = document.createElement("li");
    row.id = `${list.id}-${place}`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    const title = document.createElement("span");
    title.textContent = option.title;
    row.append(title);
    if (option.note) {
      const note = document.createElement("small");
      note.textContent = option.note;
      row.append(note);
    }
    row.addEventListener("mousedown", (event) => { event.preventDefault(); choose(place); });
    row.addEventListener("mousemove", () => mark(place));
    return row;
  }));
  list.hidden = found.length === 0;
  input.setAttribute("aria-expanded", String(found.length > 0));
  mark(found.length > 0 ? 0 : -1);
  status.textContent = input.value && !found.length ? "Nothing fits" : `${found.length} found`;
}

async function ask() {
  const number = ++asked;
  const found = await server.find(input.value);
  if (number === asked && document.activeElement === input) show(found); // an older answer may come later
}

input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 120); });
input.addEventListener("focus", () => { if (keeps) { input.select(); ask(); } });
input.addEventListener("blur", () => { clearTimeout(timer); asked++; close(); });
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (list.hidden) { ask(); return; }
    const step = event.key === "ArrowDown" ? 1 : -1;
    mark((active + step + options.length) % options.length);
  } else if (event.key === "Enter" && !list.hidden) {
    event.preventDefault();
    choose(active);
  } else if (event.key === "Escape") {
    close();
  }
});
