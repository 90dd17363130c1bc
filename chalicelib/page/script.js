"use strict";
/** @returns {any} an element, of which the checks of types know nothing */
const $ = (id) => document.getElementById(id);
const { chat = "", client, authorize = "", token = "", problem } = document.documentElement.dataset;
const now = () => performance.now(); // a clock that is never set back
const encoder = new TextEncoder();
const here = location.origin + location.pathname.replace(/\/?$/, "/");

// Limits of API Gateway and the server; those of time have a margin.
const IDLE_MS = 8 * 60_000; // without a frame from here; API Gateway closes after 10 minutes
const MESSAGE_BYTES = 32_768; // with the name before each line
const ADDRESS_CHARACTERS = 4_096; // token included
const ROOM_CHARACTERS = 64;
const SPACING_MS = 250; // between frames; the server answers 5 a second
const ANSWER_MS = 20_000; // without an answer, the connection counts as lost
const GRACE_MS = 5_000; // after an error that perhaps belongs to an earlier frame
const PAUSE_MS = 30_000; // at most, between two attempts
const SLEPT_MS = 90_000; // a timer this late has slept

// Limits of the page itself; older lines leave it.
const LINES = 1_000;
const CHARACTERS = 1_000_000; // shown in them
const SHOWN = 4_000; // characters of a text, until a button is pressed; so there are few links
const NAMES = 20; // on arrival
const GROUP_MS = 300_000; // lines of one person under one time
const LOSSES = 5; // until a button reloads the page

// The server's lines. A person's line has its name before a colon, so nobody can imitate these.
const LOGGED_IN = /^(?:Using|Current) nickname: (\S+)/;
const RENAMED = /^Nickname is: (\S+)$/;
const JOINED = /^Joined chat room "(\S+)"$/;
const LEFT = /^Left chat room "(\S+)"$/;
const TAKEN = /^Nickname \S+ is already in use\.$/;
const NO_ROOM = /^Room names are 1 to 64 /;
const NEWS = /^(\S+) (joined room|left room|is now known as (\S+))\.$/; // a line of it
const LIST = /^(\S+\n)*(\S+|\.\.\. and more rooms\.|Not currently in .*)$/; // also the room
const USAGE = "Usage: /join {chat_room_name}"; // nobody can be called Usage
const TOO_FAST = "You are sending too fast. Wait a moment.";
const EXPIRED = "Your session has expired. Please reconnect.";
const ELSEWHERE = "You have connected from elsewhere.";
const REFUSED = /^(Cannot send message if|Message too long: |Something went wrong\.|The server could not)/;
const GATEWAYS = /^\{"message": ?"[\w ]+", ?"connectionId": ?".*\}$/;

// The connection

// out; then connecting, naming, joining, in; after a loss, lost or halted
let phase = "out";
let socket;
let current = 0; // the connection whose events count
let session = kept("session"); // the tokens, if signed in
let me = ""; // the nickname
let room = ""; // to be in, or none
let isIn = false; // the server has accepted the nickname
let isReloaded = false; // and goes back to where it was
let attempts = 0;
let losses = 0;
let waits = 0; // for the nickname that this tab had before it was reloaded
let retry, patience; // timers
let gap; // the line that tells of the lost connection
let lastSent = 0;

// Storage may be forbidden.
function keep(key, value, storage = "sessionStorage") { try { window[storage].setItem(key, JSON.stringify(value)); } catch {} }
function kept(key, storage = "sessionStorage") { try { return JSON.parse(window[storage].getItem(key)); } catch { return null; } }

/** A room's name has no spaces: the server would take the first word alone. */
function withoutSpaces(name) { return name.trim().replace(/\s+/g, "-"); }

function roomOfAddress() {
  try {
    const name = withoutSpaces(decodeURIComponent(location.hash.slice(1)));
    return [...name.normalize()].length > ROOM_CHARACTERS ? "" : name;
  } catch { return ""; }
}

/** Programs that find links in texts leave out marks at the end, and brackets. */
function showAddress() {
  const name = encodeURIComponent(room).replace(/[!'()*]|[._~-]$/g, (mark) => `%${mark.charCodeAt(0).toString(16)}`);
  const address = location.pathname + (name && `#${name}`);
  if (!location.href.endsWith(address)) history.replaceState(null, "", address); // Safari counts
}

function connect() {
  clearTimeout(retry);
  phase = "connecting";
  expectAnswer();
  const mine = ++current;
  const ifMine = (act) => (value) => { if (current === mine) act(value); };
  const open = () => {
    const address = client ? `${chat}?token=${session.id}` : chat;
    if (address.length > ADDRESS_CHARACTERS) {
      setSession(null);
      return halt("The token of your account is too long. Ask the operator of this chat to remove claims from it, such as groups.");
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

function send(frame) {
  socket.send(frame);
  lastSent = now();
  expectAnswer();
}

/** The connection counts as lost, unless `answered` or `expectAnswer` is called in time. */
function expectAnswer() {
  clearTimeout(patience);
  patience = setTimeout(lose, ANSWER_MS);
}

function answered() { clearTimeout(patience); }

function lose() {
  if (phase === "connecting" && session?.refresh) session.until = 0; // perhaps refused: a browser does not tell
  if (!isIn) return ask(`The chat does not answer${client ? ", or refuses your account" : ""}. Check your connection, and try again.`);
  losses++;
  drop("lost");
  again(connect);
}

/** Stays disconnected until the button is pressed. */
function halt(why) {
  if (!isIn) return ask(why);
  aside(why, false);
  drop("halted");
  keep("isIn", false);
}

function drop(into) {
  phase = into;
  current++;
  answered();
  clearTimeout(retry);
  socket?.close();
  socket = null;
  interrupt();
  if (isIn) gap ??= aside(`Connection lost at ${clock()}.`, false);
  show();
}

function reconnectNow() { if (phase === "lost") connect(); }

let lastTick = Date.now(); // goes on while a laptop sleeps; other clocks may stop
setInterval(() => {
  const slept = Date.now() - lastTick > SLEPT_MS;
  lastTick = Date.now();
  if (slept) reconnectNow();
  if (phase === "in" && (slept || now() - lastSent > IDLE_MS)) enqueueQuiet("/room");
}, 20_000);

function hear(frame) {
  const author = authorOf(frame);
  if (author) return hearPerson(author, frame.slice(author.length + 2).split(`\n${author}: `).join("\n"));
  if (GATEWAYS.test(frame)) frame = "The server could not answer. Please try again.";
  if (frame === EXPIRED) {
    putBack(); // it was not handled
    return lose();
  }
  if (frame === ELSEWHERE) return halt(frame);
  const lines = frame.split("\n");
  if (lines.every((line) => NEWS.test(line))) return hearNews(lines);
  if (phase === "naming") return hearAboutName(frame);
  hearServer(frame);
  remember();
  show();
  pump();
}

/** The name before each line, or "" if the server itself speaks. */
function authorOf(frame) {
  const name = /^([^\s:]+): /.exec(frame)?.[1];
  if (!name || frame === USAGE || GATEWAYS.test(frame)) return "";
  return frame.split("\n").every((line) => line.startsWith(`${name}: `)) ? name : "";
}

function hearPerson(author, text) {
  if (author !== me || !hearEcho(text)) say(author, text);
  pump();
}

function hearServer(frame) {
  const joined = JOINED.exec(frame)?.[1];
  if (joined) room = joined;
  if (LEFT.exec(frame)?.[1] === room || (phase === "joining" && NO_ROOM.test(frame))) room = "";
  me = RENAMED.exec(frame)?.[1] ?? me;
  if (phase !== "joining") {
    if (!hearAnswer(frame)) aside(frame);
    if (joined) enqueueQuiet("/ls");
    return;
  }
  if (frame === TOO_FAST) return again(join);
  if (!joined || !gap) aside(frame);
  if (REFUSED.test(frame)) again(join);
  else if (joined || !room) arrive();
}

function hearAboutName(frame) {
  const name = LOGGED_IN.exec(frame)?.[1];
  if (!name) {
    const isTaken = TAKEN.test(frame);
    if (!isIn && !(isTaken && waits-- > 0)) return ask(frame);
    if (isIn && isTaken) retell(gap, `Connection lost. Waiting for the name ${me}, which the old connection still has …`);
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
  answered();
  const pause = Math.min(PAUSE_MS, 500 * 2 ** attempts++);
  retry = setTimeout(act, pause * (0.5 + Math.random() / 2));
}

function arrive() {
  phase = "in";
  answered();
  attempts = losses = 0;
  if (gap) retell(gap, `Connection lost, and back at ${clock()}. Lines from in between are missing.`);
  else if (room) enqueueQuiet("/ls");
  gap = null;
  show();
  pump();
}

function remember() {
  if (!client) keep("nickname", me, "localStorage");
  keep("isIn", true);
  showAddress();
}

/** Shows the start again, with a reason. */
function ask(problem = "") {
  isIn = isReloaded = false;
  drop("out");
  keep("isIn", false);
  $("problem").textContent = problem;
  $(client ? "room" : "nickname").focus();
}

function enter(isBack = false) {
  if (client && !session) return signIn();
  isReloaded = isBack;
  waits = isBack ? 5 : 0;
  me = $("nickname").value.trim();
  room = $("room").value = withoutSpaces($("room").value);
  $("problem").textContent = "";
  attempts = losses = 0;
  connect();
  show();
}

function leave() {
  empty();
  gap = null;
  setSession(null);
  clear();
  $("nickname").value = me;
  $("room").value = room;
  ask();
}

// The connection, signed in: OpenID Connect's authorization code flow with PKCE (RFC 7636)

async function signIn() {
  const flow = { state: crypto.randomUUID(), verifier: crypto.randomUUID() + crypto.randomUUID(), room: withoutSpaces($("room").value) };
  keep("flow", flow);
  intoDraft();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(flow.verifier)));
  const code_challenge = btoa(String.fromCharCode(...hash)).replace(/\+/g, "-").replace(/\//g, "_").replace("=", "");
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
  const answer = await fetch(token, { method: "POST", body, signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 429 || answer.status >= 500) throw answer.status;
  const { id_token: id, refresh_token: refresh = session?.refresh } = answer.ok ? await answer.json() : {};
  if (!id) return null;
  const { iat, exp } = JSON.parse(atob(id.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  return { id, refresh, until: Date.now() + (exp - iat - 60) * 1000 }; // renewed a minute ahead
}

function setSession(tokens) { keep("session", session = tokens); }

// The outbox

let outbox = []; // {text, element, tries}: what was typed and not answered yet; without an element, what the page itself asks
let underWay = null; // the first of it, once sent
let unsure = []; // texts that were refused, though perhaps an earlier frame was; then their echoes come
let next; // the timer

function isCommand(text) { return text.startsWith("/"); }

function word(text) { return text.split(/\s/, 1)[0].toLowerCase(); }

function isChange(text) { return ["/join", "/quit"].includes(word(text)); }

function enqueue(text) {
  text = asRepeated(text).replace(/\n+$/, "");
  text = text.replace(/^(\/join\s+)(\S[^]*)/i, (all, command, name) => command + withoutSpaces(name));
  outbox.push(item(text));
  pump();
  follow(true);
}

function hasUnsent() { return outbox.some((item) => item.element); }

function item(text) { return { text, element: wait(text, isCommand(text)), tries: 0 }; }

/** The page's own question, whose answer is not shown as such. */
function enqueueQuiet(text) {
  if (outbox.some((item) => !item.element)) return;
  outbox.push({ text, tries: 0 });
  pump();
}

/** The text as the server repeats it, to recognise its echo. */
function asRepeated(text) {
  return text.replace(/\p{Cs}/gu, "\ufffd").replace(/\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]/g, "\n")
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Texts whose echoes fit into a message; none of the later ones is a command. */
function pieces(text) {
  const size = (text) => encoder.encode(text).length;
  const prefix = size(`${me}: `);
  const found = [""];
  let bytes = prefix;
  for (let character of text) {
    bytes += size(character) + (character === "\n" ? prefix : 0);
    if (bytes > MESSAGE_BYTES && !isCommand(text)) {
      character = { "\n": "", "/": " /" }[character] ?? character;
      bytes = prefix + size(character);
      found.push("");
    }
    found[found.length - 1] += character;
  }
  return found.map((piece) => piece.replace(/\n+$/, "")).filter((piece) => piece);
}

/** Sends the first of the outbox; the next waits for its answer, to keep the order. */
function pump() {
  if (phase !== "in" || underWay || !outbox.length) return;
  clearTimeout(next);
  const pause = lastSent + SPACING_MS - now();
  if (pause > 0) return next = setTimeout(pump, pause);
  const [first, ...rest] = pieces(outbox[0].text);
  if (rest.length) { // now that the name is known
    outbox[0].element.remove();
    outbox.splice(0, 1, ...[first, ...rest].map(item));
    for (const { element } of outbox) if (element) $("waiting").append(element);
    regroup();
  }
  const { text, element, tries } = outbox[0];
  if (text.length > MESSAGE_BYTES && isCommand(text)) {
    fail("Not sent: too long");
    strand(text);
    return pump();
  }
  if (isCommand(text) && element && !tries) put(element, "/");
  if (word(text) === "/quit" && !room) { // has no answer, and nothing to do
    outbox.shift();
    return pump();
  }
  underWay = outbox[0];
  underWay.tries++;
  send(text);
}

/** Takes the first out of the outbox. */
function take() {
  clearTimeout(next);
  underWay = null;
  answered();
  return outbox.shift();
}

function putBack() { underWay = null; }

/** Whether an own line is the echo of the first text, which is then in the log. */
function hearEcho(text) {
  if (outbox[0]?.tries && outbox[0].text === text) { // under way, or to be sent again
    deliver(take().element);
    return true;
  }
  const refused = unsure.findIndex((item) => item.text === text);
  if (refused >= 0) unsure.splice(refused, 1)[0].element.remove();
  return false;
}

/** Whether a line of the server needs no showing: it is shown already, or the page asked for it. */
function hearAnswer(frame) {
  if (!underWay) return false;
  const { text, element } = underWay;
  const isError = REFUSED.test(frame);
  if (frame === TOO_FAST || (isError && isCommand(text))) { // perhaps said of an earlier frame
    answered();
    clearTimeout(next);
    next = setTimeout(() => {
      if (isError) giveUp();
      else putBack();
      pump();
    }, GRACE_MS);
    return !isError || !element;
  }
  if (isError) {
    unsure.push(underWay);
    fail("Not sent");
    return false;
  }
  const isDone = JOINED.test(frame) || (LEFT.test(frame) && word(text) === "/quit");
  const isAnswer = isChange(text) ? isDone || NO_ROOM.test(frame) || frame === USAGE
    : element || LIST.test(frame);
  if (!isCommand(text) || !isAnswer) return false;
  take();
  if (!isDone) strand(text);
  if (!element) return text !== "/ls" || arrival(frame);
  if (word(text) === "/ls" && LIST.test(frame)) list(frame);
  else aside(frame);
  if (frame.startsWith("Unknown command: ")) note("Put a space in front to send it as a text.");
  return true;
}

function giveUp() { strand(take().text); }

/** After a command without success: texts behind it were for another room. */
function strand(text) {
  while (isChange(text) && outbox.length && !isCommand(outbox[0].text)) fail("Not sent: the room has not changed");
}

/** The connection is gone, and no answer will come. */
function interrupt() {
  unsure = [];
  clearTimeout(next);
  if (underWay && !isCommand(underWay.text)) fail("Perhaps not sent: the connection was lost");
  if (underWay && underWay.tries > 1) {
    aside(`No answer to ${underWay.text.slice(0, 100)}`);
    giveUp();
  }
  underWay = null; // a command is sent again
  outbox = outbox.filter((item) => item.element);
}

/** Marks the first of the outbox. */
function fail(why) {
  const { element } = take();
  element.className = "line own failed";
  element.firstChild.textContent = why;
  put(element);
}

function empty() {
  outbox = [];
  underWay = null;
  $("waiting").replaceChildren();
}

/** Nothing that was typed is lost when the page is. */
function intoDraft() {
  const texts = outbox.map((item) => item.text).filter((text) => !isCommand(text));
  keep("draft", [...texts, input.value].join("\n"));
  empty();
}

// The lines

let stuck = true; // the end is in view, and stays there
let following = false;
let missed = 0;
let isNamed = false; // in what was missed
let unread = null; // the line where the unread begin
let isUnread = false; // they are not read yet
/** @type {any} */
let last = {}; // the last line: its author and day, and when its time was shown
const slots = new Map(); // the colours of people
const written = {};

function say(author, text) {
  const isOwn = author === me;
  const names = !isOwn && nameIn(text);
  if (!isOwn && (document.hidden || !stuck)) {
    if (!isUnread) {
      unread?.remove();
      unread = put(divider("New"));
    }
    isUnread = true;
  } else if (isOwn) isUnread = false;
  if (document.hidden) {
    missed++;
    isNamed ||= names;
  }
  put(line(text, isOwn ? "own" : names ? "named" : "", headOf(author), author), author);
  show();
}

/** Whether a text has one's own nickname as a word. */
function nameIn(text) {
  const name = me.toLowerCase().replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const letter = "[\\p{sc=Latin}\\p{sc=Cyrl}\\p{sc=Greek}\\d_]";
  return new RegExp(`(?<!${letter})${name}(?!${letter})`, "u").test(text.slice(0, SHOWN).toLowerCase());
}

function remark(kind, isReply, ...parts) {
  return put(box(`line aside ${kind} ${isReply ? "reply" : ""}`, box("text", ...parts)), isReply ? "/" : "");
}

/** A line of the server, or of the page about the connection. */
function aside(text, isReply = last.author === "/") { return remark("", isReply, ...rows(text)); }

/** A line of the page itself. */
function note(...parts) { return remark("note", last.author === "/", ...parts); }

function retell(element, text) { element.lastChild.replaceChildren(...rows(text)); }

/** Each keeps its indent when it is broken. */
function rows(text) {
  return text.split(/(?<=\n)/).map((row) => make("span", { style: `--indent: ${row.search(/\S|$/)}ch` }, row));
}

/** Comings and goings of several people, one after the other, are one line. */
function hearNews(lines) {
  for (const line of lines) {
    const [, name, what, then] = line.match(NEWS) ?? [];
    if (then && slots.has(name)) slots.set(then, slots.get(name));
    if (then || what === "left room") slots.delete(name);
    const names = last.what === what ? [...last.names, name] : [name];
    const text = box("text", ...row(names), ` ${what}.`);
    if (last.what === what) last.element.lastChild.replaceWith(text);
    else put(box("line aside", text));
    Object.assign(last, { what, names });
  }
  follow();
}

/** A name, apart from the direction of the words around it. */
function called(name, properties = {}) { return make("bdi", { translate: false, ...properties }, name); }

function row(names, shown = called, between = ", ") { return names.flatMap((name, n) => [n ? between : "", shown(name)]); }

function arrival(frame) {
  const others = frame.split("\n").filter((name) => name !== me);
  if (!others.length) return note("Nobody else is here yet. ", button("Copy the invitation", invite));
  const more = others.length - NAMES;
  return note("Also here: ", ...row(others.slice(0, NAMES)), more > 0 ? `, and ${more} more` : "");
}

async function invite({ target }) {
  try {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
  } catch { prompt("Send this address to others:", location.href); }
}

/** People, or rooms to join. */
function list(frame) {
  const shown = (name) => / /.test(name) ? name
    : room ? called(name, colour(name))
    : make("a", { href: `#${encodeURIComponent(name)}` }, called(name));
  put(box("line aside reply list", box("text", ...row(frame.split("\n"), shown, "\n"))), "/");
}

function divider(text) { return make("div", { className: "divider", role: "separator" }, text); }

/** The head of a line that has been delivered now. */
function headOf(author) { return [called(author, author === me ? { className: "unseen" } : colour(author)), ` ${clock()}`]; }

/** A person's line, or one's own. */
function line(text, kind, head, author = me) {
  const isOwn = author === me;
  const element = box(`line ${kind}`, box("head", ...head));
  reveal(element, text, isOwn);
  return element;
}

/** Shows the beginning of a text, with a button for more: a browser lays out 32 KB of some texts for seconds. */
function reveal(element, text, isOwn) {
  const end = text.length > SHOWN ? SHOWN - +/[\ud800-\udbff]/.test(text[SHOWN - 1]) : text.length;
  element.append(make("div", { className: "text", dir: "auto", translate: !isOwn }, ...linked(text.slice(0, end))));
  if (end === text.length) return;
  element.append(button("Show more", ({ target }) => {
    target.remove();
    reveal(element, text.slice(end), isOwn);
  }));
}

/** Words become text nodes and links, and never HTML. */
function linked(text) {
  const parts = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(/\bhttps?:\/\/[^\s<>"\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff65“”‘’«»…]+/gi)) {
    const address = found.slice(0, endOfLink(found));
    try { new URL(address); } catch { continue; }
    parts.push(text.slice(from, index), make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address));
    from = index + address.length;
  }
  return [...parts, text.slice(from)];
}

/** Without marks at the end, and before a closing bracket that was not opened inside. */
function endOfLink(address) {
  let depth = 0;
  let end = 0;
  for (let n = 0; n < address.length; n++) {
    if ("([{".includes(address[n])) depth++;
    else if (")]}".includes(address[n]) && --depth < 0) break;
    if (!".,;:!?'*_~([{".includes(address[n])) end = n + 1;
  }
  return end;
}

function box(className, ...children) { return make("div", { className }, ...children); }

function button(label, onclick) { return make("button", { onclick }, label); }

// WebKit lays out some texts for seconds, such as those of two directions, unless they come in short runs. None ends inside of a
// character, such as a letter with marks. Texts in Latin, Chinese, Japanese and Korean letters need none.
const SLOW = /\p{M}|[^\0-\u02ff\u2010-\ufaff\p{Emoji}]/u;
const RUN = /([^]{60,120}\s|[^]{100,120}?(?<![\p{RI}\u200d])(?![\p{M}\p{Cf}\p{EMod}])|[^]{120})/u;

/** @returns {any} */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  const inRuns = (text) => text.split(RUN).flatMap((part, n) => n % 2 ? [part, make("wbr")] : part);
  element.append(...children.flatMap((child) => SLOW.test(child) ? inRuns(child) : child));
  return element;
}

/** The line of a text that is not answered yet, where it will stand. */
function wait(text, isCommand) {
  const element = line(text, isCommand ? "aside command" : "own pending", ["Waiting"]);
  $("waiting").append(element);
  regroup();
  return element;
}

function deliver(element) {
  element.classList.remove("pending");
  element.firstChild.replaceChildren(...headOf(me));
  put(element, me);
  isUnread = false;
  show();
}

/** Puts a line at the end of the log. */
function put(element, author = "") {
  const log = $("log");
  const day = new Date().toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
  if (last.day && last.day !== day) {
    log.append(divider(day));
    last = {};
  }
  const more = isMore(author, last);
  element.classList.toggle("more", more);
  last = { author, element, day, at: more ? last.at : now() };
  log.append(element);
  while (log.childElementCount > LINES || log.textContent.length > CHARACTERS) log.firstChild.remove();
  regroup();
  follow();
  return element;
}

function isMore(author, { author: before, at }) { return !!author && author === before && now() - at < GROUP_MS; }

/** Gives the waiting texts the distances that they will have in the log. */
function regroup() {
  let before = last;
  for (const element of $("waiting").children) {
    const author = element.matches(".command") ? "/" : me;
    element.classList.toggle("more", isMore(author, before));
    before = { author, at: before.at ?? now() };
  }
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

function scrolled() {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  if (!following) stuck = scrollHeight - scrollTop - clientHeight < 60;
  if (stuck) $("newer").hidden = true;
  if (!document.hidden) see();
}

/** The first of ten colours that none of the last nine people has. */
function colour(name) {
  if (!slots.has(name)) {
    const taken = [...slots.values()].slice(-9);
    let slot = 0;
    while (taken.includes(slot)) slot++;
    slots.set(name, slot);
  }
  return { className: "name", style: `--hue: ${250 + slots.get(name) * 108}` };
}

function clock() { return new Date().toLocaleTimeString([], { timeStyle: "short" }); }

function clear() {
  $("log").replaceChildren();
  last = {};
  isUnread = false;
}

function show() {
  const count = missed ? `(${missed}${isNamed ? ", your name" : ""}) ` : "";
  document.title = `${count}${room ? `${room} · ` : ""}{title}`;
  $("start").hidden = isIn || isReloaded;
  $("chat").hidden = !isIn && !isReloaded;
  $("chat").classList.toggle("lost", !!gap);
  write("place", room || "No room");
  write("status", phase === "halted" ? "Not connected" : gap ? "Reconnecting …" : isIn ? `You are ${me}` : "Connecting …");
  $("resume").hidden = phase !== "halted" && losses < LOSSES;
  write("resume", phase !== "halted" ? "Reload the page" : session ? "Chat here" : "Sign in");
  write("list", room ? "People" : "Rooms");
  input.placeholder = room ? "Write to everybody" : "/join and a room’s name";
  $("enter").disabled = phase !== "out";
  write("enter", phase !== "out" ? "Connecting …" : client && !session ? "Sign in" : "Chat");
}

function write(id, text) { if (written[id] !== text) $(id).textContent = written[id] = text; }

function see() {
  missed = 0;
  isNamed = false;
  if (stuck) isUnread = false;
  show();
}

// Input

const touch = matchMedia("(pointer: coarse)"); // Enter breaks the line, and a keyboard would cover half the page
const input = $("text");
const sent = []; // and what the arrow keys show of it
let shown = 0;
let recalled = "";
let draft = kept("draft");
let composed = ""; // the end of a composition

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

function focusInput() { if (!touch.matches && isIn) input.focus(); }

function isOn(event, selectors) { return !!event.target.closest(selectors); }

function submit() { $("compose").requestSubmit(); }

$("start").onsubmit = (event) => {
  event.preventDefault();
  enter();
};
$("resume").onclick = () => {
  if (phase !== "halted") {
    intoDraft();
    return location.reload();
  }
  $("room").value = room;
  enter();
};
$("compose").onsubmit = (event) => {
  event.preventDefault();
  const text = input.value;
  if (!text.trim()) return;
  shown = sent.push(text);
  recalled = "";
  keep("draft", "");
  type("");
  enqueue(text);
  input.focus();
};
input.oninput = () => { keep("draft", input.value); type(input.value); };
input.addEventListener("compositionupdate", ({ data }) => { composed = data; });
input.onkeydown = (event) => {
  if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.isComposing || event.keyCode === 229) { // Safari has ended the composition by then
    if (event.key === "Enter" && !touch.matches && /[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]$/.test(composed)) setTimeout(submit); // Korean chooses nothing with Enter
    return;
  }
  const isShown = input.value === recalled;
  const isStart = isShown || input.selectionEnd === 0;
  if (event.key === "Enter" && !touch.matches) submit();
  else if (event.key === "ArrowUp" && isStart && shown > 0) recall(-1);
  else if (event.key === "ArrowDown" && isShown && shown < sent.length) recall(1);
  else return;
  event.preventDefault();
};
$("list").onclick = () => { enqueue("/ls"); focusInput(); };
$("help").onclick = () => { enqueue("/help"); focusInput(); };
$("leave").onclick = () => {
  if (!hasUnsent() || confirm("Some lines are not sent yet. Leave without sending them?")) leave();
};
$("newer").onclick = () => { follow(true); focusInput(); };
$("scroller").onscroll = scrolled;
new ResizeObserver(() => follow()).observe($("scroller"));
document.onclick = (event) => {
  if (getSelection()?.isCollapsed && !isOn(event, "a, button, input")) focusInput();
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const pages = { PageUp: -0.9, PageDown: 0.9 }[event.key];
  if (pages && isIn) {
    $("scroller").scrollBy(0, pages * $("scroller").clientHeight);
    event.preventDefault();
  } else if (event.key.length === 1 && !isOn(event, "a, button, input, textarea")) focusInput();
};
document.onvisibilitychange = () => {
  if (document.hidden) return;
  reconnectNow();
  see();
};
ononline = reconnectNow;
onoffline = () => { if (socket) lose(); };
onhashchange = () => {
  const wanted = roomOfAddress();
  if (wanted && wanted !== room) isIn ? enqueue(`/join ${wanted}`) : ($("room").value = wanted);
  focusInput();
};
onbeforeunload = () => hasUnsent() || null; // asks unless it is null
// For keyboards that cover the page on a phone.
const view = visualViewport;
if (view) view.onresize = () => { document.body.style.height = `${view.height * view.scale}px`; };

const answer = new URLSearchParams(location.search);
$("nickname").value = kept("nickname", "localStorage");
$("nickname").parentElement.hidden = $("nickname").disabled = !!client;
$("room").value = roomOfAddress() || $("room").value;
input.enterKeyHint = touch.matches ? "enter" : "send";
$("needs").hidden = true;
if (problem) $("problem").textContent = problem;
else if (client && answer.has("state")) comeBack(answer);
else if (kept("isIn") && (client ? session : $("nickname").value)) {
  $("room").value = roomOfAddress();
  enter(true);
}
show();
type(draft);
if (!isReloaded && !touch.matches) $(client || $("nickname").value ? "room" : "nickname").focus();
