// SPDX-License-Identifier: MIT
"use strict";
/*
 * The gateway's page: a chat, and what the gateway is doing. It talks to the same API as everybody else: /v1/models,
 * /v1/chat/completions, /v1/contexts, /metrics, /health. Nothing is kept but the token, and that in this tab.
 */

const $ = (id) => document.getElementById(id);
const SOURCES = [
	["computed", "computed here"], ["cloud", "from the cloud"], ["peer", "from a peer"],
	["disk", "from this disk"], ["file", "from a file"], ["missing", "not here yet"], ["failed", "failed"],
];

let conversation = [];
let running = null; /* AbortController of the answer on its way */
let refused = false; /* the token is missing or wrong */

/* ---- requests ---- */

function headers(more) {
	const token = sessionStorage.getItem("lslm-token");
	return token ? { ...more, Authorization: "Bearer " + token } : { ...more };
}

async function explain(response) {
	try {
		return (await response.json()).error.message;
	} catch {
		return "the gateway answered " + response.status;
	}
}

async function get(path) {
	const response = await fetch(path, { headers: headers(), cache: "no-store" });
	if (response.status === 401) {
		login();
		throw new Error("this gateway asks for a token");
	}
	if (!response.ok)
		throw new Error(await explain(response));
	return response;
}

function login() {
	refused = true;
	if (!$("login").open)
		$("login").showModal();
}

$("login").addEventListener("close", () => {
	const token = $("token").value.trim();
	if (token)
		sessionStorage.setItem("lslm-token", token);
	$("token").value = "";
	refused = false;
	start();
});

/* ---- chat ---- */

function add(role, text) {
	const item = document.createElement("li");
	const who = document.createElement("span");
	const said = document.createElement("span");
	item.className = role;
	who.className = "who";
	who.textContent = role === "user" ? "You" : "Gateway";
	said.textContent = text;
	item.append(who, said);
	$("messages").append(item);
	item.scrollIntoView({ block: "nearest" });
	return { item, said };
}

function trouble(text) {
	$("trouble").textContent = text;
	$("trouble").hidden = !text;
}

function cost(item, started, first, usage) {
	const line = document.createElement("span");
	const parts = [];
	if (first)
		parts.push("first token after " + seconds((first - started) / 1000));
	if (usage) {
		const cached = usage.prompt_tokens_details ? usage.prompt_tokens_details.cached_tokens : 0;
		const decode = (performance.now() - first) / 1000;
		parts.push(usage.prompt_tokens + " prompt tokens, " + cached + " of them reused");
		if (usage.completion_tokens > 1 && decode > 0)
			parts.push(((usage.completion_tokens - 1) / decode).toFixed(1) + " tokens/s");
	}
	line.className = "cost";
	line.textContent = parts.join("; ");
	item.append(line);
}

/* One event of a stream per call; pieces may be cut anywhere. */
async function* events(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done)
			return;
		rest += value;
		const parts = rest.split("\n\n");
		rest = parts.pop();
		for (const part of parts)
			if (part.startsWith("data: "))
				yield part.slice(6);
	}
}

async function answer(signal, shown) {
	const started = performance.now();
	const body = { model: $("model").value, messages: conversation, stream: true,
		       stream_options: { include_usage: true } };
	let text = "", first = 0, usage = null;
	if ($("context").value)
		body.context = $("context").value;
	const response = await fetch("/v1/chat/completions", {
		method: "POST", signal, body: JSON.stringify(body),
		headers: headers({ "Content-Type": "application/json" }),
	});
	if (response.status === 401)
		login();
	if (!response.ok)
		throw new Error(await explain(response));
	for await (const data of events(response.body)) {
		if (data === "[DONE]")
			break;
		const event = JSON.parse(data);
		if (event.error)
			throw new Error(event.error.message);
		const piece = event.choices && event.choices[0] && event.choices[0].delta.content;
		if (piece) {
			first = first || performance.now();
			text += piece;
			shown.said.textContent = text;
		}
		usage = event.usage || usage;
	}
	cost(shown.item, started, first, usage);
	return text;
}

async function ask(event) {
	event.preventDefault();
	const text = $("prompt").value.trim();
	if (!text || running)
		return;
	trouble("");
	conversation.push({ role: "user", content: text });
	add("user", text);
	const shown = add("assistant", "");
	$("prompt").value = "";
	running = new AbortController();
	$("send").disabled = true;
	$("stop").disabled = false;
	$("messages").setAttribute("aria-busy", "true");
	try {
		conversation.push({ role: "assistant", content: await answer(running.signal, shown) });
	} catch (error) {
		/* What was asked stands in the field again; a part of an answer that was stopped is not part of the talk. */
		conversation.pop();
		$("prompt").value = $("prompt").value || text;
		trouble(error.name === "AbortError" ? "stopped" : error.message);
	}
	running = null;
	$("messages").setAttribute("aria-busy", "false");
	$("send").disabled = false;
	$("stop").disabled = true;
	$("prompt").focus();
}

$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", () => running && running.abort());
$("clear").addEventListener("click", () => {
	if (running)
		running.abort();
	conversation = [];
	$("messages").replaceChildren();
	trouble("");
	$("prompt").focus();
});
$("prompt").addEventListener("keydown", (event) => {
	if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
		event.preventDefault();
		$("ask").requestSubmit();
	}
});

/* ---- figures ---- */

function seconds(s) {
	return s < 1 ? Math.round(s * 1000) + " ms" : s.toFixed(2) + " s";
}

/* Prometheus' text: [{name, labels, value}]. */
function parseMetrics(text) {
	const found = [];
	for (const line of text.split("\n")) {
		const m = /^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? ([^ ]+)/i.exec(line);
		if (!m)
			continue;
		const labels = {};
		for (const l of (m[2] || "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/gi))
			labels[l[1]] = l[2].replace(/\\(.)/g, "$1");
		found.push({ name: m[1], labels, value: Number(m[3]) });
	}
	return found;
}

const sum = (metrics, name) => metrics.filter((m) => m.name === name).reduce((a, m) => a + m.value, 0);

/* The value below which a share of a histogram's observations lie, at the resolution of its buckets. */
function quantile(metrics, name, share) {
	const buckets = new Map();
	for (const m of metrics)
		if (m.name === name + "_bucket") {
			const le = m.labels.le === "+Inf" ? Infinity : Number(m.labels.le);
			buckets.set(le, (buckets.get(le) || 0) + m.value);
		}
	const sorted = [...buckets].sort((a, b) => a[0] - b[0]);
	const all = sorted.length ? sorted[sorted.length - 1][1] : 0;
	if (!all)
		return null;
	const found = sorted.find((b) => b[1] >= all * share);
	return found[0];
}

let before = null;

function showMetrics(metrics) {
	const of = (kind) => sum(metrics.filter((m) => m.labels.kind === kind), "lslm_tokens_total");
	const tokens = of("generated"), prompt = of("prompt"), cached = of("cached");
	const ttft = quantile(metrics, "lslm_ttft_seconds", 0.5);
	const now = performance.now();
	$("f-requests").textContent = sum(metrics, "lslm_requests_running") + ", " + sum(metrics, "lslm_requests_queued");
	$("f-total").textContent = sum(metrics, "lslm_answers_total");
	$("f-ttft").textContent = ttft === null ? "-" : (ttft === Infinity ? "long" : "\u2264 " + seconds(ttft));
	$("f-cached").textContent = prompt ? Math.round(100 * cached / prompt) + " %" : "-";
	const blocks = sum(metrics, "lslm_kv_blocks");
	$("f-kv").textContent = blocks ? Math.round(100 * sum(metrics, "lslm_kv_blocks_used") / blocks) + " %" : "-";
	if (before && now > before.now)
		$("f-rate").textContent = ((tokens - before.tokens) * 1000 / (now - before.now)).toFixed(1);
	before = { now, tokens };
	showMisses(metrics);
}

/* What did not go the quick way, and why. */
function showMisses(metrics) {
	const count = (name, label, value) => sum(metrics.filter((m) => !label || m.labels[label] === value), name);
	const rows = [
		["no context begins like the request", count("lslm_context_requests_total", "context", "none")],
		["clouds that are away, not asked until they answer a probe",
			metrics.filter((m) => m.name === "lslm_cloud_state" && m.value > 0).length],
		["blocks that will not come, computed here", count("lslm_context_blocks_failed")],
		["queue full", count("lslm_requests_refused_total")],
		["over a tenant's quota", count("lslm_tenant_refused_total")],
		["set back for want of room, computed again", count("lslm_requests_preempted_total")],
		["client left or stopped", count("lslm_answers_total", "end", "cancelled")],
		["deadline", count("lslm_answers_total", "end", "deadline")],
		["failed", count("lslm_answers_total", "end", "failed")],
	].filter((row) => row[1] > 0);
	$("misses").tBodies[0].replaceChildren(...(rows.length ? rows : [["none", 0]]).map((row) => {
		const tr = document.createElement("tr");
		for (const cell of row) {
			const td = document.createElement("td");
			td.textContent = cell;
			tr.append(td);
		}
		return tr;
	}));
}

/* ---- contexts ---- */

const LETTERS = { ".": "missing", x: "failed", c: "cloud", p: "peer", f: "file", d: "disk", l: "computed" };

/* Of each stripe: how much of its layers is there, and where most of that came from. */
function stripesOf(map) {
	const stripes = [];
	for (let s = 0; s < map.stripes; s++) {
		const count = {};
		for (const row of map.sources) {
			const name = LETTERS[row[s]] || "cloud";
			count[name] = (count[name] || 0) + 1;
		}
		const here = Object.entries(count).filter(([name]) => name !== "missing" && name !== "failed");
		const ready = here.reduce((n, [, k]) => n + k, 0);
		here.sort((a, b) => b[1] - a[1]);
		stripes.push({ ready: ready / map.layers, source: here.length ? here[0][0] : count.failed ? "failed" : "missing" });
	}
	return stripes;
}

function readContext(c) {
	const blocks = { ...c.blocks.sources, missing: c.blocks.wanted, failed: c.blocks.failed };
	const levels = Object.entries(c.blocks.levels || {}).filter(([, n]) => n > 0).map(([name]) => name);
	return { id: c.key, title: c.title, tokens: c.tokens, state: c.state, pinned: c.pinned, requests: c.requests,
		 levels, blocks, stripes: c.map ? stripesOf(c.map) : [] };
}

function color(name) {
	return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

/*
 * One column per stripe, from the head on the left to the tail on the right; its height is what of its layers
 * is there, its colour where most of them came from.
 */
function drawMap(canvas, stripes) {
	const scale = window.devicePixelRatio || 1;
	const width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
	const pen = canvas.getContext("2d");
	canvas.width = width;
	canvas.height = height;
	pen.fillStyle = color("missing");
	pen.fillRect(0, 0, width, height);
	stripes.forEach((stripe, i) => {
		const left = Math.floor(i * width / stripes.length), right = Math.ceil((i + 1) * width / stripes.length);
		const part = height * stripe.ready;
		if (part <= 0 && stripe.source !== "failed")
			return;
		pen.fillStyle = color(stripe.source);
		pen.fillRect(left, height - (part || height), right - left, part || height);
	});
}

function describe(c) {
	const parts = SOURCES.filter(([name]) => c.blocks[name] > 0)
		.map(([name, words]) => c.blocks[name] + " blocks " + words);
	return parts.join(", ") || "no blocks";
}

function showContext(box, c) {
	box.querySelector("h4").textContent = c.title || c.id.slice(0, 12);
	const lines = box.querySelectorAll("p");
	lines[0].textContent = c.tokens + " tokens, " + c.state + (c.pinned ? ", pinned" : "");
	lines[1].textContent = describe(c) + (c.levels.length ? "; level " + c.levels.join(", ") : "") +
		"; in use by " + c.requests + (c.requests === 1 ? " request" : " requests");
	const canvas = box.querySelector("canvas");
	canvas.setAttribute("aria-label", "Block map of " + (c.title || c.id) + ": " + describe(c));
	drawMap(canvas, c.stripes);
}

function contextBox(id) {
	const box = document.createElement("article");
	box.className = "context";
	box.dataset.id = id;
	const canvas = document.createElement("canvas");
	canvas.className = "map";
	canvas.setAttribute("role", "img");
	const p = () => document.createElement("p");
	box.append(document.createElement("h4"), p(), canvas, p());
	return box;
}

/* The first context is taken until somebody chooses; none is a choice, too. */
let hasChosen = false;
$("context").addEventListener("change", () => { hasChosen = true; });

function showContexts(list) {
	const chosen = $("context").value;
	const boxes = new Map([...$("contexts").querySelectorAll("article")].map((b) => [b.dataset.id, b]));
	if (!list.length) {
		const none = document.createElement("p");
		none.className = "quiet";
		none.textContent = "none attached";
		$("contexts").replaceChildren(none);
	} else {
		const wanted = list.map((c) => boxes.get(c.id) || contextBox(c.id));
		const there = [...$("contexts").children];
		if (wanted.length !== there.length || wanted.some((box, i) => box !== there[i]))
			$("contexts").replaceChildren(...wanted);
		list.forEach((c, i) => showContext(wanted[i], c));
	}
	const options = [["", "none"], ...list.map((c) => [c.id, c.title || c.id.slice(0, 12)])];
	if (options.map(String).join() !== [...$("context").options].map((o) => [o.value, o.text].join()).join())
		$("context").replaceChildren(...options.map(([value, text]) => new Option(text, value)));
	if (list.some((c) => c.id === chosen))
		$("context").value = chosen;
	else
		$("context").value = hasChosen || !list.length ? "" : list[0].id;
}

/* ---- what goes on by itself ---- */

function legend() {
	$("legend").replaceChildren(...SOURCES.map(([name, words]) => {
		const item = document.createElement("li"), mark = document.createElement("i");
		mark.style.background = "var(--" + name + ")";
		item.append(mark, words);
		return item;
	}));
}

async function models() {
	const list = (await (await get("/v1/models")).json()).data.map((m) => m.id);
	$("model").replaceChildren(...list.map((id) => new Option(id, id)));
}

async function look() {
	const contexts = (await (await get("/v1/contexts")).json()).data.map(readContext);
	showContexts(contexts);
	showMetrics(parseMetrics(await (await get("/metrics")).text()));
	return contexts.some((c) => c.state === "arriving");
}

async function watch() {
	let pause = 2000;
	if (refused)
		return;
	try {
		/* What is on its way changes quickly. */
		pause = await look() ? 300 : 2000;
		$("health").textContent = "up";
	} catch (error) {
		$("health").textContent = "not reachable: " + error.message;
	}
	setTimeout(watch, document.hidden ? 10000 : pause);
}

async function start() {
	try {
		await models();
	} catch (error) {
		$("health").textContent = error.message;
		if (!refused)
			setTimeout(start, 2000);
		return;
	}
	watch();
}

legend();
start();
