// The operators' page: shows what /api/events tells, once a second, and on
// demand earlier draws and their results. It only reads; nothing here changes
// a draw. What comes from the server reaches the document as text, through
// textContent, and never as markup.

// Events come every second: a pause of this long is told.
const SILENCE_TOLD_MS = 3500;
// A connection may be open and dead: after so long it is made anew.
const SILENCE_DEAD_MS = 10_000;
// Between two attempts, where the browser has given up by itself.
const RETRY_MS = 2000;
// How often the silence is measured.
const WATCH_MS = 500;
// What a browser shows in one table without growing slow; the rest is for `sorteo export results`.
const WINNERS_SHOWN_MAX = 5000;
// Typing goes on within this pause; a search is sent after it.
const SEARCH_PAUSE_MS = 250;
// While the server is not ready, it is asked why at most so often.
const READY_ASKED_MS = 5000;
// The chart's width, and what the server tells at most.
const SECONDS_SHOWN = 120;
const CHART_HEIGHT = 40;
// So many agencies are named that have sent nothing; the rest are counted.
const SILENT_NAMED_MAX = 20;
// From this share of a limit on, a gauge warns.
const GAUGE_HIGH = 0.8;

const EXPORT_COMMAND = 'sorteo export results';
const LANGUAGE_KEY = 'sorteo.language';

// ── Texts ────────────────────────────────────────────────────────────────────

const TEXT = {
  en: {
    skip: 'Skip to the draw',
    chooser: 'Draw',
    language: 'Language',
    waiting: 'Waiting for the server…',
    linkWaiting: 'Connecting',
    linkLive: 'Live',
    linkLost: 'No connection',
    outage: 'No news from the server since {time}. Trying again; what you see is from then.',
    outageFromTheStart: 'The server does not answer. Trying again.',
    back: 'Connected to the server again.',
    unready: 'The server is not ready to take bets.',
    readyAgain: 'The server is ready again.',
    part: { writer: 'Writer', database: 'Database', disk: 'Disk', listener: 'Listener', reactor: 'Reactor' },
    partFails: '{part}: not ready.',
    drawHeading: 'Draw {id}',
    drawState: { open: 'Open', drawn: 'Drawn' },
    chooserOpen: 'Draw {id}: open',
    chooserDrawn: { one: 'Draw {id}: {date}, {n} winner', other: 'Draw {id}: {date}, {n} winners' },
    earlier: 'You are looking at an earlier draw.',
    toNewest: 'Back to the newest draw',
    drawFailed: 'Draw {id} cannot be shown: {error}.',
    noDraw: 'There is no draw yet.',
    announceOpen: 'Draw {id} is open.',
    announceDrawn: { one: 'Draw {id} is made: {n} winner.', other: 'Draw {id} is made: {n} winners.' },
    announceShown: 'Draw {id} is shown.',
    bets: 'Bets',
    winners: 'Winners',
    winningNumber: 'Winning number',
    opened: 'Opened',
    drawn: 'Drawn',
    done: { one: '{done} of {n} agency done', other: '{done} of {n} agencies done' },
    doneInferred: { one: '{done} of {n} agency seen so far done', other: '{done} of {n} agencies seen so far done' },
    silentCount: { one: 'Nothing has come yet from {n} more agency that is expected.', other: 'Nothing has come yet from {n} more agencies that are expected.' },
    silentNamed: { one: 'Nothing has come yet from agency {list}.', other: 'Nothing has come yet from agencies {list}.' },
    silentMore: '{n} more',
    results: 'Results by agency',
    search: 'Document or name',
    agency: 'Agency',
    print: 'Print',
    again: 'Try again',
    document: 'Document',
    name: 'Name',
    birthdate: 'Born',
    number: 'Number',
    loading: 'Loading the results…',
    found: { one: '{n} winner', other: '{n} winners' },
    foundNone: 'No winners',
    foundMatching: { one: '{n} winner matches {what}', other: '{n} winners match {what}' },
    foundNoneMatching: 'No winner matches {what}',
    whatSearch: '“{search}”',
    whatAgency: 'agency {agency}',
    cut: 'Only the first {shown} of {n} are shown. {command} writes all of them.',
    resultsFailed: 'The results could not be loaded: {error}.',
    groupAgency: 'Agency {id}',
    agencies: 'Agencies',
    onlyOpen: 'Only those not done',
    noneOpen: 'All of these agencies are done.',
    noAgency: 'No agency has sent anything yet.',
    omitted: { one: '{n} more agency is not listed here.', other: '{n} more agencies are not listed here.' },
    batches: 'Batches',
    state: 'State',
    agencyDone: 'Done',
    agencyClosed: 'Closed by an operator',
    agencyOpen: 'Not done yet',
    agencyNever: 'Was not done',
    rate: 'Bets a second',
    rateText: { one: 'Now {now} a second; at most {highest} in the last second.', other: 'Now {now} a second; at most {highest} in the last {n} seconds.' },
    rateNone: 'No second has been measured yet.',
    twoMinutesAgo: '2 min ago',
    now: 'now',
    server: 'Server',
    connections: 'Connections',
    queue: 'Writes waiting',
    ofLimit: '{value} of {limit}',
    connectionsRefused: { one: '{n} connection was turned away.', other: '{n} connections were turned away.' },
    about: 'sorteo {version}, running since {time}',
    refused: 'Refused',
    refusedNote: 'Requests refused since the server started. No bet of theirs is stored.',
    refusedNone: 'Nothing has been refused since the server started.',
    reason: 'Reason',
    requests: 'Requests',
    unknownReason: 'For a reason that this page does not know.',
    role: { viewer: 'Viewer', auditor: 'Auditor', operator: 'Operator' },
    signOut: 'Sign out',
    resultsForbidden: 'Winners are shown to auditors and operators: the role of your token sees no names or documents.',
    unprotected: 'Not protected: this server is open to the network.',
    noAnswer: 'the server does not answer',
    badAnswer: 'the server answered {status}',
  },
  es: {
    skip: 'Ir al sorteo',
    chooser: 'Sorteo',
    language: 'Idioma',
    waiting: 'Esperando al servidor…',
    linkWaiting: 'Conectando',
    linkLive: 'En vivo',
    linkLost: 'Sin conexión',
    outage: 'Sin noticias del servidor desde las {time}. Reintentando; lo que se ve es de entonces.',
    outageFromTheStart: 'El servidor no responde. Reintentando.',
    back: 'Conectado de nuevo con el servidor.',
    unready: 'El servidor no está listo para recibir apuestas.',
    readyAgain: 'El servidor está listo de nuevo.',
    part: { writer: 'Escritor', database: 'Base de datos', disk: 'Disco', listener: 'Puerto de entrada', reactor: 'Reactor' },
    partFails: '{part}: no está listo.',
    drawHeading: 'Sorteo {id}',
    drawState: { open: 'Abierto', drawn: 'Sorteado' },
    chooserOpen: 'Sorteo {id}: abierto',
    chooserDrawn: { one: 'Sorteo {id}: {date}, {n} ganador', other: 'Sorteo {id}: {date}, {n} ganadores' },
    earlier: 'Este es un sorteo anterior.',
    toNewest: 'Volver al último sorteo',
    drawFailed: 'No se puede mostrar el sorteo {id}: {error}.',
    noDraw: 'Todavía no hay ningún sorteo.',
    announceOpen: 'El sorteo {id} está abierto.',
    announceDrawn: { one: 'El sorteo {id} está hecho: {n} ganador.', other: 'El sorteo {id} está hecho: {n} ganadores.' },
    announceShown: 'Se muestra el sorteo {id}.',
    bets: 'Apuestas',
    winners: 'Ganadores',
    winningNumber: 'Número ganador',
    opened: 'Abierto',
    drawn: 'Sorteado',
    done: { one: '{done} de {n} agencia terminó', other: '{done} de {n} agencias terminaron' },
    doneInferred: { one: '{done} de {n} agencia vista hasta ahora terminó', other: '{done} de {n} agencias vistas hasta ahora terminaron' },
    silentCount: { one: 'Todavía no llegó nada de {n} agencia más que se espera.', other: 'Todavía no llegó nada de {n} agencias más que se esperan.' },
    silentNamed: { one: 'Todavía no llegó nada de la agencia {list}.', other: 'Todavía no llegó nada de las agencias {list}.' },
    silentMore: '{n} más',
    results: 'Resultados por agencia',
    search: 'Documento o nombre',
    agency: 'Agencia',
    print: 'Imprimir',
    again: 'Reintentar',
    document: 'Documento',
    name: 'Nombre',
    birthdate: 'Nacimiento',
    number: 'Número',
    loading: 'Cargando los resultados…',
    found: { one: '{n} ganador', other: '{n} ganadores' },
    foundNone: 'No hay ganadores',
    foundMatching: { one: '{n} ganador coincide con {what}', other: '{n} ganadores coinciden con {what}' },
    foundNoneMatching: 'Ningún ganador coincide con {what}',
    whatSearch: '«{search}»',
    whatAgency: 'la agencia {agency}',
    cut: 'Se muestran solo los primeros {shown} de {n}. {command} los escribe todos.',
    resultsFailed: 'No se pudieron cargar los resultados: {error}.',
    groupAgency: 'Agencia {id}',
    agencies: 'Agencias',
    onlyOpen: 'Solo las que no terminaron',
    noneOpen: 'Todas estas agencias terminaron.',
    noAgency: 'Ninguna agencia envió nada todavía.',
    omitted: { one: 'Hay {n} agencia más que no está en esta lista.', other: 'Hay {n} agencias más que no están en esta lista.' },
    batches: 'Lotes',
    state: 'Estado',
    agencyDone: 'Terminó',
    agencyClosed: 'Cerrada por un operador',
    agencyOpen: 'No terminó aún',
    agencyNever: 'No terminó',
    rate: 'Apuestas por segundo',
    rateText: { one: 'Ahora {now} por segundo; como máximo {highest} en el último segundo.', other: 'Ahora {now} por segundo; como máximo {highest} en los últimos {n} segundos.' },
    rateNone: 'Todavía no se midió ningún segundo.',
    twoMinutesAgo: 'hace 2 min',
    now: 'ahora',
    server: 'Servidor',
    connections: 'Conexiones',
    queue: 'Escrituras en espera',
    ofLimit: '{value} de {limit}',
    connectionsRefused: { one: 'Se rechazó {n} conexión.', other: 'Se rechazaron {n} conexiones.' },
    about: 'sorteo {version}, en marcha desde {time}',
    refused: 'Rechazos',
    refusedNote: 'Pedidos rechazados desde que arrancó el servidor. Ninguna de sus apuestas está guardada.',
    refusedNone: 'No se rechazó nada desde que arrancó el servidor.',
    reason: 'Motivo',
    requests: 'Pedidos',
    unknownReason: 'Por un motivo que esta página no conoce.',
    role: { viewer: 'Observador', auditor: 'Auditor', operator: 'Operador' },
    signOut: 'Cerrar sesión',
    resultsForbidden: 'Los ganadores se muestran a auditores y operadores: el rol de su token no ve nombres ni documentos.',
    unprotected: 'Sin protección: este servidor está abierto a la red.',
    noAnswer: 'el servidor no responde',
    badAnswer: 'el servidor respondió {status}',
  },
};

// A sentence for each reason code of docs/protocol.md.
const REASONS = {
  en: {
    bad_utf8: 'A row or a bet is not UTF-8 text.',
    bad_fields: 'A row or a bet has too few or too many fields.',
    bad_agency: 'The agency is not a number that an agency can have.',
    agency_mismatch: 'A row names another agency than its batch.',
    bad_first_name: 'A first name is empty, too long or not plain text.',
    bad_last_name: 'A last name is empty, too long or not plain text.',
    bad_document: 'A document is empty, too long, not plain text, or has a comma.',
    bad_birthdate: 'A birthdate is no day of the calendar, or is written in another way than YYYY-MM-DD.',
    bad_number: 'The number of a bet is not a number that can be bet on.',
    unknown: 'This is no request of the protocol.',
    bad_frame: 'A frame is empty or longer than 8192 bytes; the connection was closed.',
    bad_length: 'The length of a message is no number or over the limit; the connection was closed.',
    bad_header: 'A request has missing or excess fields.',
    bad_count: 'The count in a request is no number.',
    stray_row: 'A bet came behind a batch whose header could not be read, and may be one of its rows.',
    bad_upload: 'The name of an upload is not 1 to 64 letters, digits, dots, dashes or underscores.',
    bad_first_row: 'The first row of a batch is no number.',
    bad_after: 'The place from which winners were asked for is no number.',
    bad_draw: 'Winners were asked for of a draw that does not exist.',
    bad_wait: 'The time to wait for the winners is no number up to 60,000 milliseconds.',
    too_many: 'A batch has more bets, or a payload more agencies, than are allowed.',
    use_pages: 'The winners do not fit one answer: the agency must ask for pages.',
    empty_batch: 'A batch without a bet.',
    gap: 'Rows of the upload are missing before this batch; the agency goes on where the server says.',
    conflict: 'At this place of the upload other rows are stored already.',
    agency_done: 'A bet of an agency that is done already.',
    unknown_agency: 'An agency that the draw does not expect sent something.',
    too_many_agencies: 'More agencies sent something than may take part in the draw.',
    too_many_bets: 'An agency, or an address, sent more bets than it may have in the draw.',
    unauthorized: 'Somebody did not prove which agency it is; the connection was closed.',
    forbidden: 'An agency asked for something of another one.',
    draw_closed: 'A bet after the draw was made.',
    count_mismatch: 'An agency said it is done, but not as many bets are stored as it says it sent.',
    not_ready: 'Winners were asked for before the draw was made; agencies that wait do this.',
    busy: 'Too much was waiting; the agency tries again.',
    storage_full: 'The disk is full. Make room; agencies try again.',
    unavailable: 'The database could not be read just then; the agency tries again.',
  },
  es: {
    bad_utf8: 'Una fila o una apuesta no es texto UTF-8.',
    bad_fields: 'A una fila o apuesta le faltan o le sobran campos.',
    bad_agency: 'La agencia no es un número que una agencia pueda tener.',
    agency_mismatch: 'Una fila nombra a otra agencia que su lote.',
    bad_first_name: 'Un nombre está vacío, es demasiado largo o no es texto simple.',
    bad_last_name: 'Un apellido está vacío, es demasiado largo o no es texto simple.',
    bad_document: 'Un documento está vacío, es demasiado largo, no es texto simple o tiene una coma.',
    bad_birthdate: 'Una fecha de nacimiento no existe o no está escrita como AAAA-MM-DD.',
    bad_number: 'El número de una apuesta no es un número al que se pueda apostar.',
    unknown: 'No es un pedido del protocolo.',
    bad_frame: 'Una trama está vacía o pasa de 8192 bytes; se cerró la conexión.',
    bad_length: 'El largo de un mensaje no es un número o pasa del límite; se cerró la conexión.',
    bad_header: 'A un pedido le faltan o le sobran campos.',
    bad_count: 'La cantidad de un pedido no es un número.',
    stray_row: 'Llegó una apuesta detrás de un lote con encabezado ilegible; puede ser una de sus filas.',
    bad_upload: 'El nombre de un envío no son de 1 a 64 letras, cifras, puntos, guiones o guiones bajos.',
    bad_first_row: 'La primera fila de un lote no es un número.',
    bad_after: 'El lugar desde el que se pidieron ganadores no es un número.',
    bad_draw: 'Se pidieron los ganadores de un sorteo que no existe.',
    bad_wait: 'El tiempo de espera de los ganadores no es un número de hasta 60.000 milisegundos.',
    too_many: 'Un lote tiene más apuestas, o un mensaje más agencias, de lo permitido.',
    use_pages: 'Los ganadores no caben en una respuesta: la agencia debe pedirlos por páginas.',
    empty_batch: 'Un lote sin apuestas.',
    gap: 'Faltan filas del envío antes de este lote; la agencia sigue donde el servidor le dice.',
    conflict: 'En este lugar del envío ya hay guardadas otras filas.',
    agency_done: 'Una apuesta de una agencia que ya terminó.',
    unknown_agency: 'Envió algo una agencia que el sorteo no espera.',
    too_many_agencies: 'Enviaron algo más agencias de las que pueden participar en el sorteo.',
    too_many_bets: 'Una agencia, o una dirección, envió más apuestas de las que puede tener en el sorteo.',
    unauthorized: 'Alguien no demostró qué agencia es; se cerró la conexión.',
    forbidden: 'Una agencia pidió algo de otra.',
    draw_closed: 'Una apuesta después del sorteo.',
    count_mismatch: 'Una agencia dijo que terminó, pero no hay guardadas tantas apuestas como dice que envió.',
    not_ready: 'Se pidieron ganadores antes del sorteo; lo hacen las agencias que esperan.',
    busy: 'Había demasiado en espera; la agencia reintenta.',
    storage_full: 'El disco está lleno. Hay que hacer lugar; las agencias reintentan.',
    unavailable: 'La base de datos no se pudo leer en ese momento; la agencia reintenta.',
  },
};

// What is not protected, by the setting. The server says it in English.
const UNPROTECTED_IN_SPANISH = {
  'ops_auth=off': 'ops_auth=off: quien llegue al puerto de los operadores ve todo, también nombres y documentos de los ganadores',
  'auth=off': 'auth=off: quien llegue al puerto de las agencias puede apostar en nombre de cualquiera de ellas y leer sus ganadores',
  'tls=off': 'tls=off: lo que el servidor envía y recibe por la red no va cifrado',
};

let language = 'en';
let forms = formsOf('en');

/** The language remembered, else the first of the browser's that the page speaks. */
function firstLanguage() {
  let remembered = null;
  try {
    remembered = localStorage.getItem(LANGUAGE_KEY);
  } catch {
    // Storage is forbidden here: the browser's language it is.
  }
  if (Object.hasOwn(TEXT, remembered ?? '')) return remembered;
  const spoken = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
  return spoken.find((tag) => Object.hasOwn(TEXT, tag)) ?? 'en';
}

/** The formats of a language, in the region of the browser where it tells one. */
function formsOf(tag) {
  const locale = navigator.languages.find((l) => l.slice(0, 2).toLowerCase() === tag) ?? tag;
  const time = { hour: '2-digit', minute: '2-digit', second: '2-digit' };
  const day = { year: 'numeric', month: 'short', day: 'numeric' };
  return {
    number: new Intl.NumberFormat(locale, { useGrouping: 'always' }),
    plural: new Intl.PluralRules(locale),
    list: new Intl.ListFormat(locale),
    time: new Intl.DateTimeFormat(locale, time),
    dayAndTime: new Intl.DateTimeFormat(locale, { month: 'short', day: 'numeric', ...time }),
    moment: new Intl.DateTimeFormat(locale, { ...day, ...time, timeZoneName: 'short' }),
    day: new Intl.DateTimeFormat(locale, day),
    // A birthdate is a day, of no time zone.
    birthdate: new Intl.DateTimeFormat(locale, { ...day, timeZone: 'UTC' }),
  };
}

const number = (value) => forms.number.format(value);

/** A text with its values: numbers are formatted, anything else stays as it is. `n` chooses the plural. */
function t(key, values = {}) {
  let text = TEXT[language][key];
  if (typeof text === 'object') text = text[forms.plural.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === 'number' ? number(value) : String(value);
  });
}

/** A text for one of a few known words; a word nobody knows is shown as it is. */
function word(key, name) {
  const words = TEXT[language][key];
  return Object.hasOwn(words, name) ? words[name] : String(name);
}

function reasonText(code) {
  const sentences = REASONS[language];
  return Object.hasOwn(sentences, code) ? sentences[code] : t('unknownReason');
}

// ── The document ─────────────────────────────────────────────────────────────

const $ = (id) => document.getElementById(id);

/** Writes a text only where it differs: most of the page stays as it is each second. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a text, or hides its element where there is none. */
function setNote(node, text) {
  node.hidden = !text;
  setText(node, text ?? '');
}

function setMoment(node, iso, form = forms.moment) {
  setText(node, iso ? form.format(new Date(iso)) : '–');
  if (iso) node.dateTime = iso;
  else node.removeAttribute('datetime');
}

function setGauge(id, value, limit) {
  const meter = $(id);
  meter.max = Math.max(1, limit);
  meter.high = meter.max * GAUGE_HIGH;
  meter.low = meter.high;
  meter.optimum = 0;
  meter.value = value;
  setText($(`${id}-text`), t('ofLimit', { value, limit }));
}

const fromTemplate = (id) => $(id).content.firstElementChild.cloneNode(true);

/** Tells a screen reader what changed; only changes of state, never counts. */
function announce(text) {
  setText($('announcement'), text);
}

// ── What is known ────────────────────────────────────────────────────────────

// The newest /api/status; null before the first.
let status = null;
// The draw that was asked for by its number; null follows the newest.
let chosen = null;
// The answer about the chosen draw, where that is not the newest.
let fetched = null;
// Who the server takes us for, as /api/me says; null before it has.
let me = null;
// Why the chosen draw cannot be shown.
let fetchFailed = null;
let fetching = null;

/** The draw to show with its agencies; null while it is not known. */
function shown() {
  if (status === null) return null;
  if (chosen === null || chosen === status.draw?.id) return status.draw ? status : null;
  return fetched?.draw.id === chosen ? fetched : null;
}

/** Takes a status, tells what changed since the last, and shows it. */
function take(next) {
  const before = status;
  status = next;
  tellChange(before?.draw, next.draw);
  if (before?.ready === false && next.ready) announce(t('readyAgain'));
  render();
}

function tellChange(before, now) {
  if (!before || !now || (before.id === now.id && before.state === now.state)) return;
  if (now.state === 'drawn') announce(t('announceDrawn', { id: `${now.id}`, n: now.winners }));
  else announce(t('announceOpen', { id: `${now.id}` }));
}

function render() {
  renderLink();
  if (status === null) return;
  $('waiting').hidden = true;
  $('content').hidden = false;
  renderChooser();
  renderRate(status.bets_per_second);
  renderServer();
  renderRefused();
  renderReady();
  renderMe();
  renderUnprotected();
  ensureChosen();
  renderDraw();
}

// ── The draw ─────────────────────────────────────────────────────────────────

function renderDraw() {
  const failed = fetchFailed && t('drawFailed', { id: `${chosen}`, error: fetchFailed });
  const none = !status.draw && chosen === null ? t('noDraw') : null;
  setNote($('draw-failed'), failed ?? none);
  const view = shown();
  $('draw').hidden = $('agencies-section').hidden = Boolean(failed ?? none);
  $('earlier').hidden = chosen === null || chosen === status.draw?.id;
  if (failed ?? none) {
    $('results').hidden = true;
    return;
  }
  // While an earlier draw is on its way, the one before it stays.
  if (view === null) return;
  renderSummary(view);
  renderAgencies(view);
  ensureResults(view.draw);
}

function renderSummary({ draw, agencies, agencies_omitted: omitted }) {
  const heading = t('drawHeading', { id: `${draw.id}` });
  setText($('draw-heading'), heading);
  const state = word('drawState', draw.state);
  setText($('draw-state-text'), state);
  $('draw-state').dataset.state = draw.state;
  setText($('draw-bets'), number(draw.bets));
  setText($('draw-number'), String(draw.winning_number));
  setText($('draw-winners'), number(draw.winners));
  setMoment($('draw-opened'), draw.opened_at);
  setMoment($('draw-drawn'), draw.drawn_at);
  const drawn = draw.state === 'drawn';
  $('winners-figure').hidden = $('drawn-figure').hidden = !drawn;
  setText($('done-text'), t(draw.expected_inferred ? 'doneInferred' : 'done', { done: draw.done, n: draw.expected }));
  $('done').max = Math.max(1, draw.expected);
  $('done').value = draw.done;
  setNote($('silent'), drawn ? null : silentText(draw, agencies, omitted));
  document.title = `${heading} · ${drawn ? state : `${draw.done}/${draw.expected}`} · sorteo`;
}

/** The agencies that are expected, as ranges: those of the set, or all from 1 to the highest seen. */
function expectedRanges(draw) {
  if (!draw.expected_set) return [[1, draw.expected]];
  return draw.expected_set.split(',').map((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return [first, last];
  });
}

/** Which agencies are expected and have sent nothing: they are not in the list. */
function silentText(draw, agencies, omitted) {
  if (!draw.expected_inferred && !draw.expected_set) {
    const missing = draw.expected - agencies.length - omitted;
    return missing > 0 ? t('silentCount', { n: missing }) : null;
  }
  // Which are missing is known where all are listed.
  if (omitted > 0) return null;
  const ranges = expectedRanges(draw);
  const isExpected = (id) => ranges.some(([first, last]) => first <= id && id <= last);
  const heard = new Set(agencies.map((one) => one.agency).filter(isExpected));
  const missing = draw.expected - heard.size;
  if (missing <= 0) return null;
  const named = [];
  for (const [first, last] of ranges) {
    for (let id = first; id <= last && named.length < SILENT_NAMED_MAX; id += 1) {
      if (!heard.has(id)) named.push(`${id}`);
    }
  }
  if (missing > named.length) named.push(t('silentMore', { n: missing - named.length }));
  return t('silentNamed', { n: missing, list: forms.list.format(named) });
}

// ── Agencies ─────────────────────────────────────────────────────────────────

// The rows by agency: each is made once and written where it changed.
const agencyRows = new Map();

function renderAgencies({ draw, agencies, agencies_omitted: omitted }) {
  const drawn = draw.state === 'drawn';
  const largest = agencies.reduce((most, one) => Math.max(most, one.bets), 1);
  const body = $('agency-rows');
  const onlyOpen = $('only-open').checked;
  let place = body.firstElementChild;
  let visible = 0;
  for (const one of agencies) {
    const row = agencyRow(one.agency);
    if (row.element === place) place = place.nextElementSibling;
    else body.insertBefore(row.element, place);
    writeAgency(row, one, largest, draw);
    const hidden = onlyOpen && one.done;
    if (row.element.hidden !== hidden) row.element.hidden = hidden;
    visible += hidden ? 0 : 1;
  }
  while (place) place = dropAgency(place);
  $('agencies').dataset.drawn = drawn;
  $('agencies-scroll').hidden = visible === 0;
  setNote($('agencies-note'), agenciesNote(agencies.length, visible, omitted));
}

function agenciesNote(listed, visible, omitted) {
  const parts = [];
  if (listed === 0) parts.push(t('noAgency'));
  else if (visible === 0) parts.push(t('noneOpen'));
  if (omitted > 0) parts.push(t('omitted', { n: omitted }));
  return parts.join(' ') || null;
}

function agencyRow(agency) {
  let row = agencyRows.get(agency);
  if (row) return row;
  const element = fromTemplate('agency-row');
  const find = (selector) => element.querySelector(selector);
  row = {
    element,
    written: '',
    count: find('.count'),
    fill: find('.fill'),
    batches: find('.c-batches'),
    winners: find('.c-winners'),
    state: find('.state'),
    stateText: find('.state-text'),
    time: find('time'),
  };
  find('.c-agency').textContent = String(agency);
  element.agency = agency;
  agencyRows.set(agency, row);
  return row;
}

/** Takes a row away; answers the next. */
function dropAgency(element) {
  const next = element.nextElementSibling;
  agencyRows.delete(element.agency);
  element.remove();
  return next;
}

function writeAgency(row, one, largest, draw) {
  const share = one.bets / largest;
  const wanted = [language, draw.id, draw.state, share, one.bets, one.batches, one.winners, one.done, one.done_by, one.done_at].join();
  if (row.written === wanted) return;
  row.written = wanted;
  setText(row.count, number(one.bets));
  row.fill.style.transform = `scaleX(${share})`;
  setText(row.batches, number(one.batches));
  setText(row.winners, draw.state === 'drawn' ? number(one.winners) : '–');
  const state = one.done ? (one.done_by === 'operator' ? 'closed' : 'done') : 'open';
  row.state.dataset.state = row.fill.dataset.state = state;
  setText(row.stateText, agencyState(one, draw));
  row.time.hidden = !one.done_at;
  if (one.done_at) setMoment(row.time, one.done_at, sameDay(one.done_at, draw.opened_at) ? forms.time : forms.dayAndTime);
}

function agencyState(one, draw) {
  if (one.done) return t(one.done_by === 'operator' ? 'agencyClosed' : 'agencyDone');
  return t(draw.state === 'drawn' ? 'agencyNever' : 'agencyOpen');
}

const sameDay = (one, other) => new Date(one).toDateString() === new Date(other).toDateString();

// ── Bets a second ────────────────────────────────────────────────────────────

function renderRate(perSecond) {
  const seconds = perSecond.slice(-SECONDS_SHOWN);
  const highest = Math.max(0, ...seconds);
  const top = niceTop(highest);
  const line = ratePath(seconds, top);
  $('rate-line').setAttribute('d', line);
  const first = SECONDS_SHOWN - seconds.length;
  $('rate-area').setAttribute('d', line && `${line}V${CHART_HEIGHT}H${first}Z`);
  setText($('rate-scale'), number(top));
  setText($('rate-text'), seconds.length === 0 ? t('rateNone')
    : t('rateText', { now: seconds.at(-1), highest, n: seconds.length }));
}

/** The line's path: the newest second at the right edge, whatever is known. */
function ratePath(seconds, top) {
  const first = SECONDS_SHOWN - seconds.length;
  const points = seconds.map((bets, i) => `${first + i} ${(CHART_HEIGHT * (1 - bets / top)).toFixed(2)}`);
  return points.length === 0 ? '' : `M${points.join('L')}`;
}

/** The next 1, 2 or 5 with zeros: so the scale rests while the values move. */
function niceTop(highest) {
  if (highest <= 10) return 10;
  const unit = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].map((step) => step * unit).find((top) => top >= highest);
}

// ── The server, and what it refused ──────────────────────────────────────────

function renderServer() {
  const { connections, queue, version, started_at: started } = status;
  setGauge('connections', connections.open, connections.limit);
  setGauge('queue', queue.waiting, queue.limit);
  setNote($('connections-refused'), connections.refused > 0 ? t('connectionsRefused', { n: connections.refused }) : null);
  setText($('server-about'), t('about', { version, time: forms.moment.format(new Date(started)) }));
}

const refusedRows = new Map();

function renderRefused() {
  const { refused } = status;
  $('refused').hidden = refused.length === 0;
  setText($('refused-note'), t(refused.length === 0 ? 'refusedNone' : 'refusedNote'));
  const body = $('refused-rows');
  const named = new Set(refused.map(({ reason }) => reason));
  for (const [reason, element] of refusedRows) {
    if (named.has(reason)) continue;
    // The server was started again and counts anew.
    element.remove();
    refusedRows.delete(reason);
  }
  refused.forEach(({ reason, count }, i) => {
    const element = refusedRows.get(reason) ?? fromTemplate('refused-row');
    refusedRows.set(reason, element);
    if (body.children[i] !== element) body.insertBefore(element, body.children[i] ?? null);
    setText(element.querySelector('.sentence'), reasonText(reason));
    setText(element.querySelector('code'), reason);
    setText(element.querySelector('td'), number(count));
  });
}

// When the server was last asked why it is not ready, and what it said.
let readyAsked = -Infinity;
let unreadyParts = [];

function renderReady() {
  setText($('unready'), status.ready ? '' : t('unready'));
  if (status.ready) {
    unreadyParts = [];
    readyAsked = -Infinity;
  }
  $('unready-parts').hidden = unreadyParts.length === 0;
  $('unready-parts').replaceChildren(...unreadyParts.map(unreadyLine));
  if (status.ready || performance.now() - readyAsked < READY_ASKED_MS) return;
  readyAsked = performance.now();
  askReady();
}

/** What is wrong with a part; the server says it in English. */
function unreadyLine({ part, why }) {
  const line = document.createElement('li');
  const said = document.createElement('span');
  said.lang = 'en';
  said.textContent = why ?? '';
  line.append(`${t('partFails', { part: word('part', part) })} `, said);
  return line;
}

/** Why the server is not ready; the banner stands without it, too. */
async function askReady() {
  try {
    const answer = await (await fetch('readyz')).json();
    if (status.ready) return;
    unreadyParts = answer.parts.filter((part) => !part.ready);
    renderReady();
  } catch {
    // It is asked again, with the events that come.
  }
}

// ── Who is asking, and what is not protected ─────────────────────────────────

/** Asks who we are; who is nobody must sign in. */
async function askMe() {
  const [answer] = await ask('api/me');
  if (answer === null) return;
  me = answer;
  if (status !== null) render();
}

function renderMe() {
  const isKnown = me !== null && me.token !== null;
  $('me').hidden = !isKnown;
  if (!isKnown) return;
  setText($('role'), word('role', me.role));
  $('sign-out').hidden = !me.signed_in;
}

function renderUnprotected() {
  const lines = status.unprotected ?? [];
  const list = $('unprotected-lines');
  $('unprotected').hidden = lines.length === 0;
  const wanted = JSON.stringify([language, lines]);
  if (list.dataset.written === wanted) return;
  list.dataset.written = wanted;
  list.replaceChildren(...lines.map(unprotectedLine));
}

/** A line in our language where it has one; else as the server says it. */
function unprotectedLine(text) {
  const line = document.createElement('li');
  const known = language === 'es' ? UNPROTECTED_IN_SPANISH : {};
  const [setting] = text.split(':');
  const isKnown = Object.hasOwn(known, setting);
  if (!isKnown) line.lang = 'en';
  line.textContent = isKnown ? known[setting] : text;
  return line;
}

// ── Earlier draws ────────────────────────────────────────────────────────────

/** The draw that the address asks for. */
function chosenByAddress() {
  const match = /^#draw-(\d{1,15})$/.exec(location.hash);
  return match ? Number(match[1]) : null;
}

/** Shows a draw, and puts it into the address; null is the newest. */
function choose(id) {
  const place = location.pathname + location.search;
  history.pushState(null, '', id === null ? place : `${place}#draw-${id}`);
  follow();
}

/** Takes over what the address says. */
function follow() {
  const next = chosenByAddress();
  if (next === chosen) return;
  chosen = next;
  fetchFailed = null;
  if (status !== null) render();
  const id = chosen ?? status?.draw?.id;
  if (id !== undefined) announce(t('announceShown', { id: `${id}` }));
}

/** Asks for the chosen draw where it is an earlier one that is not here yet. */
async function ensureChosen() {
  if (chosen === null || fetchFailed || shown() || fetching === chosen) return;
  const id = chosen;
  fetching = id;
  const [answer, error] = await ask(`api/draws/${id}`);
  if (fetching === id) fetching = null;
  if (chosen !== id) return;
  fetched = answer;
  fetchFailed = error;
  render();
}

let chooserWritten = '';

/** The list of draws, written only where it differs: it may be open under somebody's hand. */
function renderChooser() {
  const known = status.draws.map(({ id, state, winners, drawn_at: drawnAt }) => [`${id}`, chooserText(id, state, winners, drawnAt)]);
  const current = `${chosen ?? status.draw?.id ?? ''}`;
  // Older than the list reaches.
  if (chosen !== null && !known.some(([id]) => id === current)) known.push([current, t('drawHeading', { id: current })]);
  const wanted = JSON.stringify([language, known]);
  const select = $('chooser');
  if (wanted !== chooserWritten) {
    chooserWritten = wanted;
    select.replaceChildren(...known.map(([id, text]) => new Option(text, id)));
  }
  if (select.value !== current) select.value = current;
  $('chooser-field').hidden = known.length === 0;
}

function chooserText(id, state, winners, drawnAt) {
  if (state !== 'drawn' || !drawnAt) return t('chooserOpen', { id: `${id}` });
  return t('chooserDrawn', { id: `${id}`, date: forms.day.format(new Date(drawnAt)), n: winners });
}

// ── Results ──────────────────────────────────────────────────────────────────

// What is asked for, and what came of it. `key` tells one question from another.
// `total` is null until the first page is here.
const results = { key: null, aborter: null, winners: [], total: null, complete: false, error: null };
// What to search for: what was typed, once the typing has paused.
const query = { search: '', agency: '' };

/** Shows the results of a draw that is made, and asks for them where they are not here. */
function ensureResults(draw) {
  $('results').hidden = draw.state !== 'drawn';
  if (draw.state !== 'drawn' || me === null) return;
  const isForbidden = me.role === 'viewer';
  setNote($('results-forbidden'), isForbidden ? t('resultsForbidden') : null);
  $('search-form').hidden = $('results-count').hidden = isForbidden;
  if (isForbidden) {
    $('results-scroll').hidden = true;
    return;
  }
  const key = JSON.stringify([draw.id, query.search, query.agency]);
  if (key !== results.key) loadResults(key);
}

/** Asks for page after page until all are here, or as many as are shown. */
async function loadResults(key) {
  results.aborter?.abort();
  const aborter = new AbortController();
  Object.assign(results, { key, aborter, winners: [], total: null, complete: false, error: null });
  $('results-scroll').setAttribute('aria-busy', 'true');
  const [draw, search, agency] = JSON.parse(key);
  let after = null;
  do {
    const asked = new URLSearchParams(Object.entries({ agency, search, after }).filter(([, value]) => value));
    const [page, error] = await ask(`api/draws/${draw}/results?${asked}`, aborter.signal);
    if (results.aborter !== aborter) return;
    if (error) {
      results.error = error;
      break;
    }
    const isFirst = after === null;
    const room = WINNERS_SHOWN_MAX - results.winners.length;
    const winners = page.winners.slice(0, room);
    results.winners.push(...winners);
    results.total = page.total;
    after = page.next;
    results.complete = after === null && winners.length === page.winners.length;
    if (isFirst) clearWinners();
    appendWinners(winners);
    renderResults();
  } while (after !== null && results.winners.length < WINNERS_SHOWN_MAX);
  renderResults();
  $('results-scroll').removeAttribute('aria-busy');
}

function renderResults() {
  const [, search, agency] = JSON.parse(results.key);
  const { total, winners, error, complete } = results;
  const nothing = error && winners.length === 0;
  if (nothing) clearWinners();
  setText($('results-count'), nothing ? '' : resultsText(total, search, agency));
  $('results-scroll').hidden = winners.length === 0;
  $('results-failed').hidden = !error;
  setText($('results-failed-text'), error ? t('resultsFailed', { error }) : '');
  const cut = !error && winners.length >= WINNERS_SHOWN_MAX && !complete;
  $('results-more').hidden = !cut;
  if (cut) writeCut(winners.length, total);
  if (complete) writeGroupCount();
}

function resultsText(total, search, agency) {
  if (total === null) return t('loading');
  const what = [];
  if (search) what.push(t('whatSearch', { search }));
  if (agency) what.push(t('whatAgency', { agency }));
  if (what.length === 0) return total === 0 ? t('foundNone') : t('found', { n: total });
  const values = { n: total, what: forms.list.format(what) };
  return t(total === 0 ? 'foundNoneMatching' : 'foundMatching', values);
}

function writeCut(shownCount, total) {
  const [before, after] = t('cut', { shown: shownCount, n: total, command: '\0' }).split('\0');
  const command = document.createElement('code');
  command.textContent = EXPORT_COMMAND;
  $('results-more').replaceChildren(before, command, after);
}

// The group that winners are being added to; null before the first.
let group = null;

function clearWinners() {
  for (const body of [...$('winners').tBodies]) body.remove();
  group = null;
}

/** Adds winners in their order; each agency has a body of its own. */
function appendWinners(winners) {
  for (const winner of winners) {
    if (group?.agency !== winner.agency) openGroup(winner.agency);
    group.body.append(winnerRow(winner));
    group.count += 1;
  }
}

function openGroup(agency) {
  writeGroupCount();
  const body = fromTemplate('winner-group');
  setText(body.querySelector('.group-agency'), t('groupAgency', { id: `${agency}` }));
  $('winners').append(body);
  group = { agency, body, count: 0 };
}

/** How many an agency has is told once all of them are here. */
function writeGroupCount() {
  if (group) setText(group.body.querySelector('.group-count'), t('found', { n: group.count }));
}

function winnerRow(winner) {
  const row = fromTemplate('winner-row');
  const [documentCell, nameCell, birthCell, numberCell] = row.cells;
  documentCell.textContent = winner.document;
  nameCell.firstElementChild.textContent = `${winner.first_name} ${winner.last_name}`;
  birthCell.textContent = birthdate(winner.birthdate);
  numberCell.textContent = String(winner.number);
  return row;
}

function birthdate(text) {
  const day = new Date(`${text}T00:00:00Z`);
  return Number.isNaN(day.getTime()) ? text : forms.birthdate.format(day);
}

/** Writes the winners that are here once more, in the language of now. */
function rewriteResults() {
  if (results.key === null) return;
  clearWinners();
  appendWinners(results.winners);
  renderResults();
}

let searchTimer = null;

function searchSoon() {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(searchNow, SEARCH_PAUSE_MS);
}

function searchNow() {
  clearTimeout(searchTimer);
  query.search = $('search').value.trim();
  query.agency = $('search-agency').value;
  renderDraw();
}

// ── The connection ───────────────────────────────────────────────────────────

/** Asks the server; answers its JSON, or what went wrong in words. */
async function ask(path, signal) {
  try {
    const response = await fetch(path, { signal });
    // The session has ended.
    if (response.status === 401) location.assign('sign-in');
    const answer = await response.json();
    if (response.ok) return [answer, null];
    return [null, answer.error ?? t('badAnswer', { status: response.status })];
  } catch {
    return [null, t('noAnswer')];
  }
}

let events = null;
let attempted = -Infinity;
let heard = null;
let heardAt = null;
let lost = false;
const loaded = performance.now();

function connect() {
  events?.close();
  attempted = performance.now();
  events = new EventSource('api/events');
  events.addEventListener('status', (event) => {
    // Shown first, heard then: what cannot be shown is no news.
    take(JSON.parse(event.data));
    heard = performance.now();
    heardAt = new Date();
    if (lost) recover();
    renderLink();
  });
  events.addEventListener('error', () => {
    // The browser does not say why it got no stream: perhaps the session has ended.
    if (events.readyState === EventSource.CLOSED) askMe();
  });
}

function recover() {
  lost = false;
  announce(t('back'));
  askMe();
  if (fetchFailed) fetchFailed = null;
  if (results.error) results.key = null;
  render();
}

/** Notices silence. The browser tries again by itself, except after an answer that is no stream of events. */
function watch() {
  const now = performance.now();
  const silence = now - (heard ?? loaded);
  if (silence > SILENCE_TOLD_MS && !lost) {
    lost = true;
    announce('');
    renderLink();
  }
  const tried = now - attempted;
  const givenUp = events.readyState === EventSource.CLOSED && tried > RETRY_MS;
  const dead = silence > SILENCE_DEAD_MS && tried > SILENCE_DEAD_MS;
  if (givenUp || dead) connect();
}

function renderLink() {
  const state = lost ? 'lost' : heard === null ? 'waiting' : 'live';
  $('link').dataset.link = state;
  setText($('link-text'), t({ lost: 'linkLost', waiting: 'linkWaiting', live: 'linkLive' }[state]));
  const time = heardAt && forms.time.format(heardAt);
  setText($('news'), time ?? '');
  if (heardAt) $('news').dateTime = heardAt.toISOString();
  const text = lost && (time ? t('outage', { time }) : t('outageFromTheStart'));
  setText($('outage'), text || '');
}

// ── The start ────────────────────────────────────────────────────────────────

function speak(tag) {
  language = tag;
  forms = formsOf(tag);
  document.documentElement.lang = tag;
  for (const node of document.querySelectorAll('[data-t]')) setText(node, t(node.dataset.t));
  for (const button of document.querySelectorAll('[data-language]')) {
    button.setAttribute('aria-pressed', String(button.dataset.language === tag));
  }
  // What was announced was so in the other language.
  announce('');
  render();
  rewriteResults();
}

function remember(tag) {
  try {
    localStorage.setItem(LANGUAGE_KEY, tag);
  } catch {
    // Storage is forbidden here: the choice holds until the page is closed.
  }
}

/** A list that scrolls can be reached by keyboard; one that does not is no stop. */
function watchScrolling(id) {
  const scroller = $(id);
  const check = () => {
    if (scroller.scrollHeight > scroller.clientHeight) scroller.tabIndex = 0;
    else scroller.removeAttribute('tabindex');
  };
  const observer = new ResizeObserver(check);
  observer.observe(scroller);
  observer.observe(scroller.firstElementChild);
}

function listen() {
  for (const button of document.querySelectorAll('[data-language]')) {
    button.addEventListener('click', () => {
      remember(button.dataset.language);
      speak(button.dataset.language);
    });
  }
  $('skip').addEventListener('click', (event) => {
    // Without touching the address: it tells the draw.
    event.preventDefault();
    $('main').focus();
  });
  $('chooser').addEventListener('change', () => {
    const id = Number($('chooser').value);
    choose(id === status.draw?.id ? null : id);
  });
  $('newest').addEventListener('click', (event) => {
    event.preventDefault();
    choose(null);
    $('main').focus();
  });
  // The browser may bring the page back as it was: perhaps of somebody who has signed out.
  addEventListener('pageshow', ({ persisted }) => {
    if (persisted) location.reload();
  });
  addEventListener('popstate', follow);
  addEventListener('hashchange', follow);
  $('only-open').addEventListener('change', renderDraw);
  $('search').addEventListener('input', searchSoon);
  $('search-agency').addEventListener('input', ({ target }) => {
    target.value = target.value.replace(/\D/g, '');
    searchSoon();
  });
  $('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    searchNow();
  });
  $('results-again').addEventListener('click', () => {
    results.key = null;
    renderDraw();
  });
  $('print').addEventListener('click', () => print());
}

chosen = chosenByAddress();
listen();
watchScrolling('agencies-scroll');
watchScrolling('results-scroll');
speak(firstLanguage());
askMe();
connect();
setInterval(watch, WATCH_MS);
