// The OpenAI API of the server that this page came from.

export class ApiError extends Error {
  constructor(status, message, code, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

async function ask(path, key, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const said = body.error?.message ?? `The server answered ${response.status}.`;
  const message = response.status === 401 ? "A wrong or missing API key." : said;
  throw new ApiError(response.status, message, body.error?.code, response.headers.get("Retry-After"));
}

export const listModels = async (key) =>
  (await (await ask("/v1/models", key)).json()).data.map((model) => model.id);

// The slashes of an id stay: servers and proxies do not agree about escaped ones.
export const readDocument = async (id, key) =>
  (await ask(`/v1/documents/${id.split("/").map(encodeURIComponent).join("/")}`, key)).json();

// Chunks of an answer, as they come.
export async function* chat(body, key, signal) {
  const response = await ask("/v1/chat/completions", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data: ")) continue;
        if (event === "data: [DONE]") return;
        const chunk = JSON.parse(event.slice(6));
        if (chunk.error) throw new ApiError(500, chunk.error.message, chunk.error.code);
        yield chunk;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError(0, "The connection broke off.");
  }
  throw new ApiError(0, "The connection broke off before the answer ended.");
}
