// A form of filters (#filters) and the table of what they find (#found), in pages.

import {request} from "./request.js";
import {follow, make} from "./text.js";

const byId = (id) => document.getElementById(id);
const PAGE = 50;
export const TIMES = ["since", "before"]; // fields

export class PagedList {
  #kind; // the path of the API, and the key of its answer
  #cells;
  #cursors = []; // the last row of each page before this one
  #asked = 0; // answers to older requests are ignored

  // `cells(item, row)` returns those of a row of the table; `onFilter` is called with an event after each change of the
  // filters.
  constructor(kind, cells, onFilter = () => {}) {
    this.#kind = kind;
    this.#cells = cells;
    const filtered = (event) => {
      onFilter(event);
      this.#turn(() => (this.#cursors = []));
    };
    byId("filters").addEventListener("change", filtered);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", (event) => setTimeout(() => filtered(event))); // the fields are empty only then
    byId("older").addEventListener("click", () => this.#turn(() => this.#cursors.push(byId("found").dataset.last)));
    byId("newer").addEventListener("click", () => this.#turn(() => this.#cursors.pop()));
    byId("newest").addEventListener("click", () => this.#turn(() => (this.#cursors = [])));
  }

  get isFirstPage() {
    return !this.#cursors.length;
  }

  // The query of the filters, without the page.
  filters() {
    const found = new URLSearchParams();
    for (const [key, text] of new FormData(byId("filters"))) {
      const value = text.trim();
      if (value) found.set(key, TIMES.includes(key) ? new Date(value).toISOString() : value);
    }
    return found;
  }

  async show() {
    const number = ++this.#asked;
    const page = this.filters();
    page.set("limit", PAGE + 1);
    if (!this.isFirstPage) page.set("after", this.#cursors.at(-1));
    try {
      const answer = await request(`/${this.#kind.path}?${page}`);
      if (number !== this.#asked) return;
      this.showProblem("");
      this.#fill(answer[this.#kind.key]);
    } catch (error) {
      if (number === this.#asked) this.showProblem(error.message);
    }
  }

  showProblem(text) {
    byId("problem").textContent = text;
    byId("problem").hidden = !text;
  }

  #turn(change) {
    change();
    this.show().then(() => byId("found").closest(".scroll").scrollTo(0, 0));
  }

  #fill(found) {
    const shown = found.slice(0, PAGE);
    const first = this.#cursors.length * PAGE;
    follow(byId("found"), shown, ({id}) => id, () => make("tr"), (row, item) => this.#fillRow(row, item));
    byId("found").dataset.last = shown.at(-1)?.id ?? "";
    byId("nothing").hidden = shown.length > 0;
    byId("nothing").textContent = `No such ${this.#kind.key}.`;
    byId("range").textContent = shown.length ? `${first + 1} to ${first + shown.length}` : "";
    byId("older").disabled = found.length <= PAGE;
    byId("newer").disabled = byId("newest").disabled = this.isFirstPage;
  }
  #fillRow(row, item) {
    const hadFocus = row.contains(document.activeElement);
    row.replaceChildren(...this.#cells(item, row));
    if (hadFocus) row.querySelector("a")?.focus();
  }
}
