// The example `axum_login` in Chromium, at the org that `run` has started. The application is at `localhost` and the org at
// 127.0.0.1: to the browser those are two sites, as they are with Salesforce.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { chromium } from 'playwright-core';

const org = JSON.parse(process.env.ORG);
const app = process.env.APP;
const directory = mkdtempSync(join(tmpdir(), 'axum-login-'));
const netLog = join(directory, 'net.json');

let browser;
let user;
// What the browser has asked for, in all tests, and what was not as it should be.
const urls = new Set();
const complaints = [];

before(async () => {
  await pull('add-redirect-uri', { uri: `${app}/callback` });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
      `--log-net-log=${netLog}`,
    ],
  });
});

after(async () => {
  await browser.close();
  rmSync(directory, { recursive: true, force: true });
});

beforeEach(async () => {
  user = await newUser();
});

afterEach(async () => {
  await pull('fault', { on: 'data', fault: 'none' });
  await pull('fault', { on: 'revoke', fault: 'none' });
  await user.context().close();
  assert.deepEqual(complaints.splice(0), []);
});

// === What goes well ===

test('log in, and see the list', async () => {
  await user.goto(app);
  await shoot('home');
  const pending = user.waitForResponse(`${app}/login`);
  await click('Log in with Salesforce');
  const [begun] = (await (await pending).headersArray()).filter(({ name }) => name.toLowerCase() === 'set-cookie');
  assert.match(begun.value, /^salesforce-login=[^;]+; Path=\/; Max-Age=600; HttpOnly; SameSite=Lax$/);
  assert.equal(new URL(user.url()).origin, org.base_url);
  const authorization = new URL(user.url()).searchParams;
  assert.equal(authorization.get('code_challenge_method'), 'S256');
  const challenge = authorization.get('code_challenge');
  const [cookie] = await cookies();
  assert.equal(cookie.name, 'salesforce-login');
  assert.ok(!cookie.value.includes(authorization.get('state')), 'the cookie is encrypted');
  assert.ok(!JSON.stringify(await cookies()).includes(challenge));

  await enter();
  await shoot('consent', { everywhere: false });
  await click('Allow');
  await seeContacts();
  await shoot('contacts');

  assert.equal(user.url(), `${app}/contacts`);
  const [session, ...others] = await cookies();
  assert.deepEqual(others, [], 'the cookie of the login has served its turn');
  const { name, domain, path, expires, httpOnly, secure, sameSite } = session;
  assert.deepEqual(
    { name, domain, path, expires, httpOnly, secure, sameSite },
    // At https it is `__Host-session`, and secure.
    { name: 'session', domain: 'localhost', path: '/', expires: -1, httpOnly: true, secure: false, sameSite: 'Lax' },
  );
  // The first page leads a logged-in user to the list.
  await user.goto(app);
  await seeContacts();
});

test('the session expires, and the user does not notice', async () => {
  await logIn();
  for (let round = 0; round < 3; round++) {
    await pull('expire-sessions');
    const counted = await counting(() => user.reload());
    await seeContacts();
    assert.equal(counted.token_requests, 1, 'one refresh for all requests of the page');
    assert.equal(counted.refresh_token_reuses, 0);
    assert.equal(counted.data_accepted, 1);
  }
  assert.equal((await counting(() => user.reload())).token_requests, 0);
});

test('log out', async () => {
  await logIn();
  const [session] = await cookies();
  const counted = await counting(() => click('Log out'));
  await see('You are logged out', 200);
  await shoot('logged-out');
  assert.equal(counted.tokens_revoked, 1);
  assert.deepEqual(await cookies(), []);

  await user.goBack();
  assert.ok(!(await user.content()).includes('ann@acme.example.com'), 'nothing of the list is left in the browser');
  // A copy of the old cookie does not help either.
  await user.context().addCookies([session]);
  await user.goto(`${app}/contacts`);
  await see('Your session is over', 401);
  assert.deepEqual(await cookies(), []);
});

test('two users are two sessions', async () => {
  await logIn();
  const [first] = await cookies();
  const other = user;
  user = await newUser();
  await logIn();
  const [second] = await cookies();
  assert.notEqual(first.value, second.value);
  await click('Log out');
  await see('You are logged out', 200);
  await other.reload();
  assert.ok(await other.getByText('ann@acme.example.com').isVisible());
  await other.context().close();
});

test('a second login gives another session, and ends the former', async () => {
  await logIn();
  const [former] = await cookies();
  const counted = await counting(logIn);
  assert.equal(counted.tokens_revoked, 1);
  assert.notEqual((await cookies())[0].value, former.value);
  await user.context().clearCookies();
  await user.context().addCookies([former]);
  await user.goto(`${app}/contacts`);
  await see('Your session is over', 401);
});

// === What does not ===

test('the user denies it', async () => {
  await begin();
  await enter();
  const counted = await counting(() => click('Deny'));
  await see('You did not allow it', 403);
  await shoot('denied');
  assert.equal(counted.token_requests, 0);
  assert.deepEqual(await cookies(), []);
  // And thinks better of it.
  await click('Log in with Salesforce');
  await enter();
  await click('Allow');
  await seeContacts();
});

test('the state is forged', async () => {
  await begin();
  const begun = user.url();
  // The login of another user, which an attacker wants this browser to take over.
  const theirs = await newUser();
  await theirs.goto(`${app}/login`);
  const theirCallback = await approved(theirs.url());
  const counted = await counting(() => user.goto(theirCallback));
  await see('This login did not begin here', 400);
  await shoot('forged');
  assert.equal(counted.token_requests, 0, 'the code is not even looked at');
  await theirs.context().close();

  for (const query of ['', '?code=aPrx', '?code=aPrx&state=', '?code=aPrx&state=a&state=b', '?error=access_denied&state=no']) {
    await user.goto(`${app}/callback${query}`);
    await see('This login did not begin here', 400);
  }
  // What this browser had begun is not disturbed by any of it.
  await user.goto(await approved(begun));
  await seeContacts();
});

test('the code is used again', async () => {
  await begin();
  const callback = await approved(user.url());
  await user.goto(callback);
  await seeContacts();
  const counted = await counting(() => user.goto(callback));
  await see('This login was used already', 400);
  assert.equal(counted.token_requests, 0, 'it is presented once');
  await shoot('reused');
  await click('Contacts');
  await seeContacts();

  // With the state of another login, so that only the org can know.
  await begin();
  const again = new URL(callback);
  again.searchParams.set('state', new URL(user.url()).searchParams.get('state'));
  await user.goto(again.href);
  await see('This login was used already', 400);
  // A user who was logged in still is.
  await user.goto(app);
  await seeContacts();
});

test('the grant is revoked, and the user logs in again', async () => {
  await logIn();
  await pull('revoke-grants');
  await pull('expire-sessions');
  await user.reload();
  await see('Your session is over', 401);
  await shoot('session-over');
  assert.deepEqual(await cookies(), []);
  await click('Log in with Salesforce');
  await enter();
  await click('Allow');
  await seeContacts();
});

test('Salesforce is in trouble, and then it is not', async () => {
  await logIn();
  await pull('fault', { on: 'data', fault: 'lose-answer' });
  await user.reload();
  await see('Salesforce cannot be reached', 502);
  await shoot('unreachable');
  await pull('fault', { on: 'data', fault: { refuse: { status: 403, error: 'API_DISABLED_FOR_ORG', description: '<b>' } } });
  await user.reload();
  await see('Salesforce did not show your contacts', 502);
  await pull('fault', { on: 'data', fault: 'none' });
  assert.equal((await cookies()).length, 1, 'the session is still to be had');
  await click('Log out');
  await see('You are logged out', 200);
});

test('log out while Salesforce cannot be reached', async () => {
  await logIn();
  const [session] = await cookies();
  await pull('fault', { on: 'revoke', fault: 'maintenance' });
  await click('Log out');
  await see('You are logged out here only', 502);
  await shoot('not-revoked');
  assert.deepEqual(await cookies(), []);
  await user.context().addCookies([session]);
  await user.goto(`${app}/contacts`);
  await see('Your session is over', 401);
});

test('no other site logs the user out', async () => {
  await logIn();
  // Another site, and another origin of the same one, which is sent the cookie.
  for (const origin of ['http://127.0.0.1:9', 'http://localhost:9']) {
    const bait = `<form method="post" action="${app}/logout"><button>Kittens</button></form>`;
    await user.route(`${origin}/`, (route) => route.fulfill({ contentType: 'text/html', body: bait }));
    await user.goto(`${origin}/`);
    const counted = await counting(() => click('Kittens'));
    await see('This did not come from here', 403);
    assert.equal(counted.revoke_requests, 0);
  }
  await user.goto(`${app}/logout`);
  await user.goto(app);
  await seeContacts();
});

test('a page that is not there', async () => {
  await user.goto(`${app}/nothing`);
  await see('There is nothing here', 404);
});

// === What holds for all of it. These come last. ===

test('nothing secret is in the log of the application', () => {
  const log = readFileSync(process.env.APP_LOG, 'utf8');
  assert.match(log, /path="\/callback"/);
  const secrets = [org.client_secret];
  for (const url of urls) {
    for (const name of ['code', 'state', 'code_challenge']) {
      const value = new URL(url).searchParams.get(name);
      if (value?.length > 20) secrets.push(value, encodeURIComponent(value));
    }
  }
  assert.ok(secrets.length > 50, `${secrets.length} secrets were seen`);
  for (const secret of secrets) assert.ok(!log.includes(secret), `${secret} is in the log`);
  assert.ok(!log.includes('00Dxx'), 'an access token is in the log');
});

test('nothing has left this machine', async () => {
  await browser.close();
  const outside = [...urls].filter((url) => !['localhost', '127.0.0.1'].includes(new URL(url).hostname));
  assert.deepEqual(outside, []);
  // The browser's own affairs too. (It does not count what it asks the system for a way to without sending anything.)
  const { constants, events } = JSON.parse(readFileSync(netLog, 'utf8'));
  const of = (name) => events.filter(({ type }) => type === constants.logEventTypes[name]);
  const connected = of('TCP_CONNECT_ATTEMPT').flatMap(({ params }) => params?.address ?? []);
  assert.ok(connected.length > 0);
  assert.deepEqual(connected.filter((address) => !/^(127\.0\.0\.1|\[::1\]):\d+$/.test(address)), []);
  assert.ok(constants.logEventTypes.UDP_BYTES_SENT);
  assert.deepEqual(of('UDP_BYTES_SENT'), []);
});

// === A user in front of a browser ===

// A browser of one's own, in which no page can run a script.
async function newUser() {
  const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1000, height: 640 } });
  context.setDefaultTimeout(10_000);
  context.on('request', (request) => urls.add(request.url()));
  context.on('response', (response) => complaints.push(...wrongHeaders(response)));
  const page = await context.newPage();
  page.on('console', (message) => {
    // The console also reports the error statuses that the tests expect.
    if (!message.text().startsWith('Failed to load resource')) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  return page;
}

// What each answer of the application has to have.
function wrongHeaders(response) {
  const url = new URL(response.url());
  if (url.origin !== app) return [];
  const headers = response.headers();
  const isFile = ['/style.css', '/icon.svg'].includes(url.pathname);
  const expected = {
    'cache-control': isFile ? 'public, max-age=600' : 'no-store',
    'content-security-policy':
      "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    'referrer-policy': 'strict-origin',
    'x-content-type-options': 'nosniff',
  };
  return Object.entries(expected)
    .filter(([name, value]) => headers[name] !== value)
    .map(([name]) => `${url.pathname}: ${name} is ${headers[name]}`);
}

async function logIn() {
  await begin();
  await enter();
  await click('Allow');
  await seeContacts();
}

async function begin() {
  await user.goto(`${app}/login`);
  await user.getByLabel('Password').waitFor();
}

async function enter() {
  await user.getByLabel('Username').fill(org.username);
  await user.getByLabel('Password').fill(org.password);
  await user.getByRole('button', { name: 'Log In' }).click();
  await user.getByRole('button', { name: 'Allow' }).waitFor();
}

// Where the org sends a browser whose user allows it.
async function approved(authorizeUrl) {
  return (await pull('approve', { authorize_url: authorizeUrl })).redirect;
}

async function click(name) {
  const target = user.getByRole('button', { name }).or(user.getByRole('link', { name, exact: true }));
  await Promise.all([user.waitForEvent('domcontentloaded'), target.click()]);
}

async function seeContacts() {
  await user.getByRole('heading', { level: 1, name: 'Contacts' }).waitFor();
  const rows = await user.getByRole('row').allInnerTexts();
  assert.deepEqual(
    rows.map((row) => row.split(/\s*\t\s*/)),
    [['Name', 'Email'], ['Ann Example', 'ann@acme.example.com'], ['Ben Sample', 'ben@globex.example.com']],
  );
  assert.ok(await user.locator('header').getByText(org.username).isVisible());
  await look();
}

// The page with this heading, which came with this status.
async function see(heading, status) {
  await user.getByRole('heading', { level: 1, name: heading }).waitFor();
  if (status !== 200) assert.ok(await user.getByText(`Error ${status}`).isVisible(), `it says ${status}`);
  await look();
}

// What is true of every page of the application.
async function look() {
  const content = await user.content();
  assert.ok(!/<script|\son\w+=|style=|javascript:/i.test(content), 'nothing in it is a script');
  for (const name of ['code', 'state']) {
    const value = new URL(user.url()).searchParams.get(name);
    assert.ok(!value || value.length < 8 || !content.includes(value), `the ${name} is in the page`);
  }
  assert.equal(await user.locator('html').getAttribute('lang'), 'en');
  assert.match(await user.title(), / · Address Book$/);
}

// What it looks like, and whether it fits.
async function shoot(name, { everywhere = true } = {}) {
  const at = (kind) => `${name}${kind}.png`;
  if (!everywhere) {
    await user.screenshot({ path: at('') });
    return;
  }
  const wide = user.viewportSize();
  for (const colorScheme of ['light', 'dark']) {
    await user.emulateMedia({ colorScheme });
    await user.screenshot({ path: at(`-${colorScheme}`) });
  }
  await user.emulateMedia({ colorScheme: 'light' });
  for (const width of [320, 400]) {
    await user.setViewportSize({ width, height: 700 });
    const needed = await user.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(needed <= width, `${name} needs ${needed} pixels, and has ${width}`);
  }
  await user.screenshot({ path: at('-narrow') });
  await user.setViewportSize(wide);
}

function cookies() {
  return user.context().cookies(app);
}

// === The org ===

async function pull(lever, parameters = {}) {
  const answer = await fetch(`${org.base_url}/emulator/${lever}`, { method: 'POST', body: JSON.stringify(parameters) });
  const told = await answer.json();
  assert.equal(answer.status, 200, told.message);
  return told;
}

// How much each counter has grown when `work` is done.
async function counting(work) {
  const stats = async () => (await fetch(`${org.base_url}/emulator/stats`)).json();
  const before = await stats();
  await work();
  const after = await stats();
  return Object.fromEntries(Object.keys(after).map((name) => [name, after[name] - before[name]]));
}
