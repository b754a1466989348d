// SPDX-License-Identifier: MIT
// What tests/net/openai.test lets the real client do: node openai.mjs CASE. The environment says where the client and the
// server are: OPENAI_AT, URL, TOKEN, CONTEXT (a key), HANDBOOK (a file), QUESTION, ANSWER.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { default: OpenAI } = createRequire(process.env.OPENAI_AT + "/")("openai");
const { URL: url, TOKEN: apiKey, CONTEXT: context, QUESTION: question, ANSWER: answer } = process.env;
const client = new OpenAI({ baseURL: url + "/v1", apiKey, maxRetries: 0 });
const model = "handbook";
const ask = {
  model,
  temperature: 0,
  max_tokens: 32,
  messages: [
    { role: "system", content: readFileSync(process.env.HANDBOOK, "utf8") },
    { role: "user", content: question },
  ],
};
const prompt = { model, prompt: "The amber pump", temperature: 0, max_tokens: 8 };

async function metric(name) {
  const text = await (await fetch(url + "/metrics", { headers: { Authorization: "Bearer " + apiKey } })).text();
  const line = text.split("\n").find((l) => l.startsWith(name + " "));
  return line ? Number(line.split(" ").pop()) : 0;
}

const cases = {
  async a_chat_meets_its_context() {
    const got = await client.chat.completions.create(ask);
    assert.equal(got.object, "chat.completion");
    assert.equal(got.choices[0].message.content, answer);
    assert.equal(got.choices[0].finish_reason, "stop");
    assert.ok(got.usage.prompt_tokens_details.cached_tokens >= 704, JSON.stringify(got.usage));
    assert.equal(got.usage.total_tokens, got.usage.prompt_tokens + got.usage.completion_tokens);
  },

  async a_chat_names_its_context() {
    const messages = ask.messages.slice(1);
    const got = await client.chat.completions.create({ ...ask, messages, context });
    assert.equal(got.choices[0].message.content, answer);
    const headers = { "X-Lslm-Context": "handbook.txt" };
    const same = await client.chat.completions.create({ ...ask, messages }, { headers });
    assert.equal(same.choices[0].message.content, answer);
  },

  async a_stream() {
    let text = "", usage, finish;
    const stream = await client.chat.completions.create({
      ...ask, stream: true, stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, answer);
    assert.equal(finish, "stop");
    assert.ok(usage.completion_tokens > 0);
  },

  async the_helper_for_streams() {
    const stream = client.beta.chat.completions.stream({ ...ask, logprobs: true, top_logprobs: 2 });
    let text = "";
    stream.on("content", (delta) => { text += delta; });
    const whole = await stream.finalChatCompletion();
    assert.equal(text, answer);
    assert.equal(whole.choices[0].message.content, answer);
    assert.equal(whole.choices[0].logprobs.content.map((t) => t.token).join(""), answer);
  },

  async choices_seeds_and_stops() {
    const hot = { ...ask, n: 3, temperature: 1.5, seed: 5, messages: ask.messages.slice(1) };
    const one = await client.chat.completions.create(hot), two = await client.chat.completions.create(hot);
    assert.equal(one.choices.length, 3);
    assert.deepEqual(one.choices.map((c) => c.message), two.choices.map((c) => c.message));
    const word = answer.split(" ")[2];
    const cut = await client.chat.completions.create({ ...ask, stop: ["zzz", word] });
    assert.equal(cut.choices[0].message.content, answer.slice(0, answer.indexOf(word)));
  },

  async completions_and_their_stream() {
    const got = await client.completions.create({ ...prompt, logprobs: 2 });
    assert.equal(got.object, "text_completion");
    assert.equal(got.choices[0].logprobs.tokens.join(""), got.choices[0].text);
    let text = "";
    for await (const chunk of await client.completions.create({ ...prompt, stream: true }))
      text += chunk.choices[0].text;
    assert.equal(text, got.choices[0].text);
  },

  async models() {
    const all = [];
    for await (const m of client.models.list()) all.push(m.id);
    assert.deepEqual(all, [model]);
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async errors_are_of_their_classes() {
    const is = (type, status, param) => (e) =>
      e instanceof type && e.status === status && (e.param ?? null) === param && e.message.length > 4;
    await assert.rejects(client.chat.completions.create({ ...ask, model: "gpt-4o" }),
      is(OpenAI.NotFoundError, 404, "model"));
    await assert.rejects(client.chat.completions.create({ ...ask, presence_penalty: 1 }),
      is(OpenAI.BadRequestError, 400, "presence_penalty"));
    await assert.rejects(client.completions.create({ ...prompt, prompt: "word ".repeat(9000) }),
      (e) => is(OpenAI.BadRequestError, 400, "prompt")(e) && e.code === "context_length_exceeded");
    await assert.rejects(client.chat.completions.create({ ...ask, n: 4 }), is(OpenAI.RateLimitError, 429, null));
    const stranger = new OpenAI({ baseURL: url + "/v1", apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), is(OpenAI.AuthenticationError, 401, null));
    await assert.rejects(client.models.retrieve("gpt-4o"), is(OpenAI.NotFoundError, 404, null));
  },

  async a_client_that_leaves() {
    const name = 'lslm_answers_total{model="handbook",end="cancelled"}';
    const before = await metric(name);
    const stream = await client.completions.create({ ...prompt, max_tokens: 8000, repeat_penalty: 0.01, stream: true });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      stream.controller.abort();
    }
    while ((await metric(name)) !== before + 1) await new Promise((r) => setTimeout(r, 50));
  },

  async many_at_once() {
    const all = await Promise.all(Array.from({ length: 3 }, () => client.chat.completions.create(ask)));
    assert.deepEqual(all.map((got) => got.choices[0].message.content), [answer, answer, answer]);
  },
};

await cases[process.argv[2]]();
