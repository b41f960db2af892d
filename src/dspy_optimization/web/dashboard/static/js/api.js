// The public API, as any other client has it.

export class Problem extends Error {
  constructor(status, title, detail, errors = []) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body, headers) => ask("POST", path, body, headers);
export const patch = (path, body) => ask("PATCH", path, body);
export const remove = (path) => ask("DELETE", path);

export const base = "/api/v1";

async function ask(method, path, body, headers = {}) {
  const sent = { method, headers: { Accept: "application/json", ...headers }, credentials: "same-origin", cache: "no-cache" };
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    sent.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path.startsWith("/") ? path : `${base}/${path}`, sent);
  } catch {
    throw new Problem(0, "The service does not answer", "It may be restarting, or the network is away. It is asked again.");
  }
  if (response.status === 401 && document.body.dataset.page !== "login") {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);
    await new Promise(() => {}); // the page is being left
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    throw new Problem(response.status, answer?.title ?? `Status ${response.status}`, answer?.detail ?? "", answer?.errors ?? []);
  }
  return answer;
}

// All pages of a list, at most so many items.
export async function all(path, most = 1000) {
  const items = [];
  let cursor = null;
  do {
    const joint = path.includes("?") ? "&" : "?";
    const page = await get(`${path}${joint}limit=200${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < most);
  return items;
}
