"use strict";
const $ = (id) => document.getElementById(id);
const { chat, client, authorize, token, problem } = document.documentElement.dataset;
const here = location.origin + location.pathname.replace(/\/?$/, "/");

// Limits of API Gateway and the server; those of time have a margin.
const IDLE_MS = 8 * 60_000; // without a frame from here; API Gateway closes after 10 minutes
const MESSAGE_BYTES = 32_768; // with the name before each line
const ADDRESS_CHARACTERS = 4_096; // token included
const SPACING_MS = 250; // between frames; the server answers 5 a second
const REPLY_MS = 20_000; // without a reply, the connection is dead
const COMMAND_MS = 2_000; // some commands have no reply
const PAUSE_MS = 30_000; // at most, between two attempts
const SLEPT_MS = 90_000; // a timer this late has slept

// Limits of the page itself; older lines leave it.
const LINES = 1_000;
const CHARACTERS = 1_000_000;
const SENT = 100;

// The server's lines. A person's line has its name before a colon, so nobody can imitate these.
const LOGGED_IN = /^(?:Using|Current) nickname: (\S+)/;
const RENAMED = /^Nickname is: (\S+)$/;
const JOINED = /^Joined chat room "(\S+)"$/;
const LEFT = /^Left chat room "(\S+)"$/;
const TAKEN = /^Nickname \S+ is already in use\.$/;
const NO_ROOM = /^Room names are 1 to 64 /;
const OUTSIDE = "Not currently in a room. Type /join {room_name} to do so.";
const USAGE = "Usage: /join {chat_room_name}"; // nobody can be called Usage
const TOO_FAST = "You are sending too fast. Wait a moment.";
const EXPIRED = "Your session has expired. Please reconnect.";
const ELSEWHERE = "You have connected from elsewhere.";
const REFUSED = /^(Cannot send message if not in chatroom\.|Message too long: .*|(Something went wrong|The server could not answer)\. Please try again\.)$/;
const GATEWAYS = /^\{"message": ?"[\w ]+", ?"connectionId": ?"[^"]*", ?"requestId": ?"[^"]*"\}$/;

let phase = "out"; // then "connecting", "naming", "joining", "in"; after a loss, "lost" or "halted"
let socket;
let current = 0; // the connection whose events count
let session = kept("session"); // the tokens, if signed in
let me = ""; // the nickname, and the room to be in; "" outside
let room = "";
let isIn = false; // the server has accepted the nickname
let attempts = 0;
let waits = 0; // for the nickname that this tab had before it was reloaded
let retry, patience, next; // timers
let gap; // the line that tells of the lost connection
let hush; // the reply to a frame that only kept the connection open
let lastSent = 0;
const outbox = $("waiting").children; // what was typed and not answered yet
let isUnderWay = false; // the first

// Storage may be forbidden.
function keep(key, value, storage = "sessionStorage") { try { window[storage].setItem(key, JSON.stringify(value)); } catch {} }
function kept(key, storage = "sessionStorage") { try { return JSON.parse(window[storage].getItem(key)); } catch { return null; } }
function roomOfAddress() { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } }

// The connection

function connect() {
  clearTimeout(retry);
  phase = "connecting";
  expectReply();
  const mine = ++current;
  const ifMine = (act) => (value) => { if (current === mine) act(value); };
  const open = () => {
    const address = client ? `${chat}?token=${session.id}` : chat;
    if (address.length > ADDRESS_CHARACTERS) {
      setSession(null);
      return halt("The token of your account is too long to sign in with. Ask the operator of this chat to remove claims from it, such as groups.");
    }
    socket = new WebSocket(address);
    socket.onopen = ifMine(login);
    socket.onmessage = ifMine(({ data }) => hear(data));
    socket.onclose = ifMine(lose);
  };
  if (!client || session.until > Date.now()) return open();
  getTokens({ grant_type: "refresh_token", refresh_token: session.refresh ?? "" }).then(ifMine((tokens) => {
    setSession(tokens);
    tokens ? open() : halt("You are not signed in any more.");
  }), ifMine(lose));
}

function send(frame, isAnswered = true) {
  socket.send(frame);
  lastSent = Date.now();
  if (isAnswered) expectReply();
}

function expectReply() { patience ??= setTimeout(lose, REPLY_MS); }

function heard() {
  clearTimeout(patience);
  patience = undefined;
}

function lose() {
  if (phase === "connecting" && session?.refresh) session.until = 0; // perhaps refused: a browser does not tell
  if (!isIn) return ask(`The chat does not answer${client ? ", or refuses your account" : ""}. Check your connection, and try again.`);
  drop("lost");
  again(connect);
}

/** Stays disconnected until the button is pressed. */
function halt(why) {
  if (!isIn) return ask(why);
  aside(why);
  drop("halted");
  keep("isIn", false);
}

function drop(into) {
  phase = into;
  current++;
  heard();
  clearTimeout(retry);
  clearTimeout(next);
  hush = null;
  socket?.close();
  socket = null;
  if (isUnderWay && !isCommand(words(outbox[0]))) fail(settle(), "Perhaps not sent: the connection was lost");
  isUnderWay = false; // a command may be sent again
  if (isIn) gap ??= aside(`Connection lost at ${clock()}.`);
  show();
}

function reconnectNow() { if (phase === "lost") connect(); }

let lastTick = Date.now();
setInterval(() => {
  const slept = Date.now() - lastTick > SLEPT_MS;
  lastTick = Date.now();
  if (slept) reconnectNow();
  if (phase !== "in" || !(slept || Date.now() - lastSent > IDLE_MS)) return;
  hush = room || OUTSIDE;
  send("/room"); // keeps the connection open, and finds out whether it still is
}, 20_000);

// Frames from the server

function hear(frame) {
  heard();
  if (GATEWAYS.test(frame)) frame = "The server could not answer. Please try again.";
  const author = authorOf(frame);
  if (author === null) hearServer(frame);
  else hearPerson(author, frame.slice(author.length + 2).replaceAll(`\n${author}: `, "\n"));
}

/** The name before each line, or null if the server itself speaks. */
function authorOf(frame) {
  const name = /^([^\s:]+): /.exec(frame)?.[1];
  if (!name || frame === USAGE) return null;
  return frame.split("\n").every((line) => line.startsWith(`${name}: `)) ? name : null;
}

function hearPerson(author, text) {
  if (author === me && isUnderWay && words(outbox[0]) === text) settle();
  say(author, text);
  if (document.hidden) missed++;
  show();
  pump();
}

function hearServer(frame) {
  if (frame === EXPIRED) {
    isUnderWay = false; // it was not handled, and is sent again
    return lose();
  }
  if (frame === ELSEWHERE) return halt(frame);
  if (phase === "naming") return hearAboutName(frame);
  if (frame === hush) return hush = null;
  const isText = isUnderWay && !isCommand(words(outbox[0]));
  if (frame === TOO_FAST && phase === "joining") return again(join);
  if (frame === TOO_FAST && isText) return later(1_500);
  if (isText && REFUSED.test(frame)) fail(settle(), "Not sent");
  else if (isUnderWay && !isText) settle();
  const joined = JOINED.exec(frame)?.[1];
  const left = LEFT.exec(frame)?.[1];
  if (joined) room = joined;
  if (left === room || (phase === "joining" && NO_ROOM.test(frame))) room = "";
  me = RENAMED.exec(frame)?.[1] ?? me;
  if (!(phase === "joining" && joined && gap)) aside(frame);
  if (phase === "joining" && REFUSED.test(frame)) return again(join);
  if (phase === "joining" && (joined || !room)) arrive();
  remember();
  show();
  pump();
}

function hearAboutName(frame) {
  const name = LOGGED_IN.exec(frame)?.[1];
  if (!name) {
    const isTaken = TAKEN.test(frame);
    if (!isIn && !(isTaken && waits-- > 0)) return ask(frame);
    if (isIn && isTaken) gap.lastChild.textContent = `Connection lost. The old connection still has the name ${me}: waiting until it ends …`;
    return again(login);
  }
  me = name;
  isIn = true;
  remember();
  if (!gap && !client) aside(frame);
  if (room) join();
  else arrive();
  show();
  focusInput();
}

function login() { phase = "naming"; send(client ? "/nick" : me); }

function join() { phase = "joining"; send(`/join ${room}`); }

/** Retries, less and less often. */
function again(act) {
  const pause = Math.min(PAUSE_MS, 500 * 2 ** attempts++);
  retry = setTimeout(act, pause * (0.5 + Math.random() / 2));
}

function arrive() {
  phase = "in";
  attempts = 0;
  if (gap) {
    gap.lastChild.textContent = `Connection lost, and back at ${clock()}. Lines from in between are missing.`;
    gap = null;
  }
  show();
  pump();
}

// Input

function submit(text) {
  $("waiting").append(waiting(asRepeated(text).replace(/\n+$/, "")));
  follow(true);
  pump();
}

/** The text as the server repeats it, to recognise its echo. */
function asRepeated(text) {
  return text.toWellFormed().replace(/\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]/g, "\n")
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function waiting(text) { return line(text, isCommand(text) ? "aside command" : "own pending", "Waiting"); }

/** Texts whose echoes fit into a message; none of the later ones is a command. */
function pieces(text) {
  const size = (code) => 1 + (code > 0x7f) + (code > 0x7ff) + (code > 0xffff); // in UTF-8
  const prefix = new TextEncoder().encode(`${me}: `).length;
  const found = [""];
  let bytes = prefix;
  for (let character of text) {
    bytes += size(character.codePointAt()) + (character === "\n" ? prefix : 0);
    if (bytes > MESSAGE_BYTES) {
      character = { "\n": "", "/": " /" }[character] ?? character;
      bytes = prefix + new TextEncoder().encode(character).length;
      found.push("");
    }
    found[found.length - 1] += character;
  }
  return found.map((piece) => piece.replace(/\n+$/, "")).filter((piece) => piece);
}

/** Sends the first of the outbox; the next waits for its answer, to keep the order. */
function pump() {
  if (phase !== "in" || isUnderWay || !outbox.length) return;
  const pause = lastSent + SPACING_MS - Date.now();
  if (pause > 0) return later(pause);
  const [text, ...rest] = pieces(words(outbox[0]));
  if (rest.length) outbox[0].replaceWith(...[text, ...rest].map(waiting)); // now that the name is known
  isUnderWay = true;
  send(text, !isCommand(text));
  if (isCommand(text)) {
    outbox[0].hidden = true;
    aside(text, "command");
  }
  next = setTimeout(() => {
    settle();
    if (!isCommand(text)) fail(text, "Perhaps not sent: no answer");
    pump();
  }, isCommand(text) ? COMMAND_MS : REPLY_MS);
}

function isCommand(text) { return text.startsWith("/"); }

function later(milliseconds) {
  isUnderWay = false;
  clearTimeout(next);
  next = setTimeout(pump, milliseconds);
}

/** Takes the first out of the outbox. */
function settle() {
  clearTimeout(next);
  isUnderWay = false;
  const text = words(outbox[0]);
  outbox[0].remove();
  return text;
}

function fail(text, why) { append(line(text, "own failed", why)); }

// The lines shown

let stuck = true; // the end is in view, and stays there
let following = false;
let missed = 0;
let characters = 0;
let last = {}; // the author and the time of the last line

function say(author, text) {
  const more = last.author === author && Date.now() - last.at < 300_000;
  append(line(text, (author === me ? "own" : "") + (more ? " more" : ""), clock(), author));
  last = { author, at: Date.now() };
}

function aside(text, kind = "") {
  const isReply = last.author === "/" || text.split("\n").length > 2;
  const element = append(line(text, `aside ${kind || (isReply ? "reply" : "")}`));
  if (kind) last = { author: "/" };
  return element;
}

/** People's words become text nodes and links, and never HTML. */
function line(text, kind, head = "", author = "") {
  const parts = text.split(/(\bhttps?:\/\/[^\s<>"]*[^\s<>".,;:!?'()[\]{}…])/i).map((part, n) =>
    n % 2 && URL.canParse(part) ? make("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part);
  const name = make("bdi", { className: author === me ? "unseen" : "name", style: `--hue: ${hue(author)}` }, author);
  return make("div", { className: `line ${kind}` },
    head && make("div", { className: "head" }, ...(author ? [name, " "] : []), head),
    make("div", { className: "text", dir: "auto" }, ...parts));
}

function words(line) { return line.lastChild.textContent; }

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function append(element) {
  last = {};
  const log = $("log");
  log.append(element);
  characters += element.textContent.length;
  while (log.childElementCount > LINES || (characters > CHARACTERS && log.childElementCount > 1)) {
    characters -= log.firstChild.textContent.length;
    log.firstChild.remove();
  }
  follow();
  return element;
}

function follow(always = false) {
  if (always) stuck = true;
  $("newer").hidden = stuck;
  if (!stuck || following) return;
  following = true;
  requestAnimationFrame(() => {
    following = false;
    $("scroller").scrollTop = $("scroller").scrollHeight;
  });
}

function hue(name) {
  return [...name.toLowerCase()].reduce((hash, character) => (hash * 31 + character.codePointAt()) % 1_000_003, 0) * 137.5 % 360;
}

function clock() { return new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }); }

function show() {
  document.title = `${missed ? `(${missed}) ` : ""}${room ? `${room} · ` : ""}ChaliceChat`;
  $("start").hidden = isIn;
  $("chat").hidden = !isIn;
  $("chat").classList.toggle("lost", !!gap);
  write("place", room || "No room");
  write("status", phase === "halted" ? "Not connected" : gap ? "Reconnecting …" : `You are ${me}`);
  $("resume").hidden = phase !== "halted";
  write("resume", session ? "Chat here" : "Sign in");
  write("list", room ? "People" : "Rooms");
  $("text").placeholder = room ? "Write to everybody" : "/join and a room’s name";
  $("enter").disabled = phase !== "out";
  write("enter", phase !== "out" ? "Connecting …" : client && !session ? "Sign in" : "Chat");
}

function write(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }

function remember() {
  if (!client) keep("nickname", me, "localStorage");
  keep("isIn", true);
  if (roomOfAddress() !== room) showAddress();
}

function showAddress() { history.replaceState(null, "", location.pathname + (room && `#${encodeURIComponent(room)}`)); }

/** Shows the start again, with a reason. */
function ask(problem = "") {
  isIn = false;
  drop("out");
  keep("isIn", false);
  $("problem").textContent = problem;
  $(client ? "room" : "nickname").focus();
}

function enter() {
  if (client && !session) return signIn();
  me = $("nickname").value.trim();
  room = $("room").value.trim();
  $("problem").textContent = "";
  attempts = 0;
  connect();
  show();
}

// Signing in: OpenID Connect's authorization code flow with PKCE (RFC 7636)

async function signIn() {
  const flow = { state: crypto.randomUUID(), verifier: crypto.randomUUID() + crypto.randomUUID(), room: $("room").value };
  keep("flow", flow);
  keep("draft", [...[...outbox].map(words).filter((text) => !isCommand(text)), input.value].join("\n"));
  $("waiting").replaceChildren();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(flow.verifier)));
  const code_challenge = btoa(String.fromCharCode(...hash)).replaceAll("+", "-").replaceAll("/", "_").replace("=", "");
  location.assign(authorize + new URLSearchParams({ redirect_uri: here, state: flow.state, code_challenge }));
}

async function comeBack(answer) {
  const flow = kept("flow") ?? {};
  keep("flow", null);
  $("room").value = room = flow.room ?? roomOfAddress();
  showAddress();
  phase = "connecting";
  show();
  const code = answer.get("state") === flow.state && answer.get("code");
  try {
    if (code) setSession(await getTokens({ grant_type: "authorization_code", code, redirect_uri: here, code_verifier: flow.verifier }));
  } catch {}
  session ? enter() : ask("Signing in did not work. Please try again.");
}

/** The issuer's answer, null if it refuses; throws if it gives none. */
async function getTokens(request) {
  const body = new URLSearchParams({ client_id: client, ...request });
  const answer = await fetch(token, { method: "POST", body, signal: AbortSignal.timeout(REPLY_MS) });
  if (answer.status === 429 || answer.status >= 500) throw answer.status;
  const { id_token: id, refresh_token: refresh = session?.refresh } = answer.ok ? await answer.json() : {};
  if (!id) return null;
  const { iat, exp } = JSON.parse(atob(id.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  return { id, refresh, until: Date.now() + (exp - iat - 60) * 1000 }; // renewed a minute ahead
}

function setSession(tokens) { keep("session", session = tokens); }

// Keys and buttons

const hasKeyboard = matchMedia("(pointer: fine)").matches;
const input = $("text");
let sent = []; // and what the arrow keys show of it
let shown = 0;
let recalled = "";
let draft = kept("draft");

function type(text) {
  input.value = text;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

function recall(step) {
  if (shown === sent.length) draft = input.value;
  shown += step;
  type(recalled = sent[shown] ?? draft);
}

function focusInput() { if (hasKeyboard && isIn) input.focus(); }

$("start").onsubmit = (event) => {
  event.preventDefault();
  waits = 0;
  enter();
};
$("resume").onclick = () => {
  $("room").value = room;
  enter();
};
$("compose").onsubmit = (event) => {
  event.preventDefault();
  const text = input.value;
  if (!text.trim()) return;
  sent = [...sent, text].slice(-SENT);
  shown = sent.length;
  recalled = "";
  keep("draft", "");
  type("");
  submit(text);
  input.focus();
};
input.oninput = () => { keep("draft", input.value); type(input.value); };
input.onkeydown = (event) => {
  if (event.isComposing || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
  const isShown = input.value === recalled;
  const isStart = isShown || input.selectionEnd === 0;
  if (event.key === "Enter") $("compose").requestSubmit();
  else if (event.key === "ArrowUp" && isStart && shown > 0) recall(-1);
  else if (event.key === "ArrowDown" && isShown && shown < sent.length) recall(1);
  else return;
  event.preventDefault();
};
$("list").onclick = () => { submit("/ls"); focusInput(); };
$("help").onclick = () => { submit("/help"); focusInput(); };
$("leave").onclick = () => {
  if (outbox.length && !confirm("Some lines are not sent yet. Leave without sending them?")) return;
  $("waiting").replaceChildren();
  isUnderWay = false;
  gap = null;
  setSession(null);
  $("log").replaceChildren();
  characters = 0;
  $("room").value = room;
  ask();
};
$("newer").onclick = () => { follow(true); focusInput(); };
$("scroller").onscroll = () => {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  if (!following) stuck = scrollHeight - scrollTop - clientHeight < 60;
  if (stuck) $("newer").hidden = true;
};
new ResizeObserver(() => follow()).observe($("scroller"));
document.onclick = (event) => {
  if (getSelection().isCollapsed && !event.target.closest("a, button, input")) focusInput();
};
document.onkeydown = (event) => {
  const isTyped = event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (isTyped && !event.target.closest("a, button, input, textarea")) focusInput();
};
document.onvisibilitychange = () => {
  if (document.hidden) return;
  missed = 0;
  reconnectNow();
  show();
};
ononline = reconnectNow;
onoffline = () => { if (socket) lose(); };
onhashchange = () => {
  const wanted = roomOfAddress();
  if (wanted && wanted !== room) isIn ? submit(`/join ${wanted}`) : ($("room").value = wanted);
};
onbeforeunload = (event) => { if (outbox.length) event.preventDefault(); };
// For keyboards that cover the page on a phone.
visualViewport.onresize = () => { document.body.style.height = `${visualViewport.height * visualViewport.scale}px`; };

const answer = new URLSearchParams(location.search);
$("nickname").value = kept("nickname", "localStorage");
$("nickname").parentElement.hidden = $("nickname").disabled = !!client;
$("room").value = roomOfAddress() || $("room").value;
show();
type(draft);
if (problem) $("problem").textContent = problem;
else if (client && answer.has("state")) comeBack(answer);
else if (kept("isIn") && (client ? session : $("nickname").value)) {
  waits = 5;
  enter();
}
else if (hasKeyboard) $(client || $("nickname").value ? "room" : "nickname").focus();
