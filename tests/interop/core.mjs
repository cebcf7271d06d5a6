// @salesforce/core, the library of the Salesforce CLI, against the org that `run` has started.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { counting, org, orgId, overTls, pull, refreshToken, userId } from './support.mjs';

// The library keeps its log-ins below the home directory. Without an audience it would try Salesforce's own hosts, too.
const home = mkdtempSync(join(tmpdir(), 'core-'));
Object.assign(process.env, { HOME: home, SF_AUDIENCE_URL: org.base_url });
const { AuthInfo, AuthRemover, Connection, Org, User, WebOAuthServer } = await import('@salesforce/core');

let tls;
before(async () => {
  tls = await overTls();
});
after(() => {
  tls.close();
  rmSync(home, { recursive: true });
});
beforeEach(async () => {
  await pull('rotate-refresh-tokens', { rotate: false });
  // It refuses to overwrite a log-in.
  await (await AuthRemover.create()).removeAllAuths();
});

const jwt = { clientId: org.client_id, loginUrl: org.base_url, privateKey: org.jwt_private_key };
const options = { clientId: org.client_id, clientSecret: org.client_secret, loginUrl: org.base_url };
const query = "SELECT Id, Name FROM Account WHERE Name LIKE 'Acm%'";

// === JWT ===

test('JWT: a log-in, whose exp is in milliseconds, needs one token call', async () => {
  let info;
  const counted = await counting(async () => {
    info = await jwtInfo();
  });
  assert.deepEqual([counted.token_requests, counted.tokens_issued, counted.logins], [1, 1, 1]);
  const fields = info.getFields();
  assert.equal(fields.orgId, orgId);
  assert.equal(fields.username, org.username);
  assert.equal(fields.instanceUrl, org.base_url);
  assert.ok(info.isJwt());
});

test('JWT: the org is told from a Dev Hub and from a sandbox', async () => {
  const fields = (await jwtInfo()).getFields();
  assert.equal(fields.isDevHub, false);
  assert.equal(fields.isScratch, false);
  assert.equal(fields.isSandbox, false);
  assert.equal(fields.name, 'Example');
});

test('JWT: an unknown consumer key is refused with its reason', async () => {
  const asking = AuthInfo.create({ username: org.username, oauth2Options: { ...jwt, clientId: 'unknown' } });
  await assert.rejects(asking, { name: 'JwtAuthError', message: /client identifier invalid/ });
});

test('JWT: a user without approval is refused with its reason', async () => {
  await pull('preauthorize', { preauthorize: false });
  try {
    const asking = AuthInfo.create({ username: 'other@example.com', oauth2Options: jwt });
    await assert.rejects(asking, { name: 'JwtAuthError', message: /user hasn't approved this consumer/ });
  } finally {
    await pull('preauthorize', { preauthorize: true });
  }
});

test('JWT: a query after the session has expired', async () => {
  const conn = await jwtConnection();
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await queries(conn);
  });
  assert.deepEqual([counted.data_rejected, counted.logins], [1, 1]);
});

test('JWT: eight queries after the session has expired cost one log-in', async () => {
  const conn = await jwtConnection();
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await Promise.all(Array.from({ length: 8 }, () => queries(conn)));
  });
  assert.equal(counted.logins, 1);
});

test('JWT: a log-in is found again by its user name', async () => {
  await (await jwtInfo()).save();
  const found = await Org.create({ aliasOrUsername: org.username });
  assert.equal(found.getOrgId(), orgId);
  await found.refreshAuth();
  await queries(found.getConnection());
});

// === access token ===

test('access token: a query', async () => {
  const conn = await tokenConnection();
  await queries(conn);
});

test('access token: an expired session is not begun anew', async () => {
  const conn = await tokenConnection();
  await pull('expire-sessions');
  await assert.rejects(queries(conn), /Bad_OAuth_Token|expired/i);
});

// === web server flow ===

test('web server flow: a browser comes back to the server of the library, with PKCE', async () => {
  const { info } = await browse();
  assert.equal(info.getUsername(), org.username);
  await queries(await Connection.create({ authInfo: info }));
});

test('web server flow: a query after the session has expired', async () => {
  const conn = await Connection.create({ authInfo: (await browse()).info });
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await queries(conn);
  });
  assert.deepEqual([counted.data_rejected, counted.tokens_issued], [1, 1]);
});

test('web server flow: a code that was used is refused with its reason', async () => {
  const { code, server } = await browse();
  const again = AuthInfo.create({ oauth2Options: { ...options, authCode: code }, oauth2: server.oauth2 });
  await assert.rejects(again, { name: 'AuthCodeExchangeError', message: /expired authorization code/ });
});

// === SFDX auth URL ===

test('SFDX auth URL: a log-in', async () => {
  const info = await sfdxInfo();
  const fields = info.getFields();
  assert.equal(fields.username, org.username);
  assert.equal(fields.orgId, orgId);
  assert.equal(fields.instanceUrl, org.base_url);
});

test('SFDX auth URL: an empty secret, and the URL that comes out', async () => {
  await pull('require-secret', { required: false });
  try {
    const token = await refreshToken();
    const info = await sfdxInfo(`force://${org.client_id}::${token}@${tls.host}`);
    // It has the instance, not the host of the log-in.
    const host = new URL(org.base_url).host;
    assert.equal(info.getSfdxAuthUrl(), `force://${org.client_id}::${token}@${host}`);
  } finally {
    await pull('require-secret', { required: true });
  }
});

test('SFDX auth URL: a query after the session has expired', async () => {
  const conn = await Connection.create({ authInfo: await sfdxInfo() });
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await queries(conn);
  });
  assert.deepEqual([counted.data_rejected, counted.tokens_issued], [1, 1]);
});

test('SFDX auth URL: a refresh after the grant was revoked says why it fails', async () => {
  const conn = await Connection.create({ authInfo: await sfdxInfo() });
  await pull('revoke-grants');
  await pull('expire-sessions');
  await assert.rejects(queries(conn), /expired access\/refresh token/);
});

// The library keeps the first refresh token, and does not read the one of the answer.
test('SFDX auth URL: under rotation the library refreshes once, and then presents the spent token', async () => {
  const url = `force://${org.client_id}:${org.client_secret}:${await refreshToken()}@${tls.host}`;
  await pull('rotate-refresh-tokens', { rotate: true });
  const conn = await Connection.create({ authInfo: await sfdxInfo(url) });
  await queries(conn);
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await assert.rejects(queries(conn), /expired access\/refresh token/);
  });
  assert.equal(counted.refresh_token_reuses, 1, 'the library has learnt to rotate');
});

// === data ===

test('the newest API version', async () => {
  assert.equal(await (await jwtConnection()).retrieveMaxApiVersion(), '68.0');
});

test('a record is created, read, changed and deleted', async () => {
  const accounts = (await jwtConnection()).sobject('Account');
  const { id, success } = await accounts.create({ Name: 'Umbrella', Industry: 'Biotechnology' });
  assert.ok(success);
  assert.equal((await accounts.retrieve(id)).Name, 'Umbrella');
  assert.ok((await accounts.update({ Id: id, Name: 'Umbrella, Inc.' })).success);
  assert.equal((await accounts.findOne({ Id: id })).Name, 'Umbrella, Inc.');
  assert.ok((await accounts.destroy(id)).success);
  await assert.rejects(accounts.retrieve(id), { errorCode: 'NOT_FOUND' });
});

test('one record by a query, and the errors for none and for several', async () => {
  const conn = await jwtConnection();
  const one = await conn.singleRecordQuery(query);
  assert.equal(one.Name, 'Acme');
  await assert.rejects(conn.singleRecordQuery("SELECT Id FROM Account WHERE Name = 'None'"), /No record found/);
  await assert.rejects(conn.singleRecordQuery('SELECT Id FROM Account'), /more than 1 record/);
});

test('a long result is fetched page by page', async () => {
  const conn = await jwtConnection();
  const records = Array.from({ length: 200 }, (_, number) => ({ LastName: `Paged ${number}` }));
  for (let part = 0; part < 11; part += 1) {
    await conn.sobject('Contact').create(records, { allOrNone: true });
  }
  const found = await conn.autoFetchQuery("SELECT LastName FROM Contact WHERE LastName LIKE 'Paged%'");
  assert.deepEqual([found.totalSize, found.records.length, found.done], [2200, 2200, true]);
});

test('the user as a record', async () => {
  const found = await Org.create({ connection: await jwtConnection() });
  const user = await User.create({ org: found });
  const fields = await user.retrieve(org.username);
  assert.equal(fields.id, userId);
  assert.equal(fields.timeZoneSidKey, 'America/Los_Angeles');
});

test('the objects and the fields of one', async () => {
  const conn = await jwtConnection();
  const { sobjects } = await conn.describeGlobal();
  assert.deepEqual(sobjects.map(({ name }) => name), ['Account', 'Contact', 'Organization', 'User']);
  const { fields } = await conn.describe('User');
  assert.ok(fields.some(({ name, type }) => name === 'IsActive' && type === 'boolean'));
});

test('a retired version is gone', async () => {
  const conn = await jwtConnection();
  await assert.rejects(conn.request('/services/data/v30.0/sobjects'), { errorCode: 'UNSUPPORTED_API_VERSION' });
});

test('SOQL that is not known is refused with its place', async () => {
  const conn = await jwtConnection();
  await assert.rejects(conn.query('SELECT Name FROM Account GROUP BY Name'), {
    errorCode: 'MALFORMED_QUERY',
    message: /Row:1:Column:26[^]*'GROUP'/,
  });
});

// === support ===

/** What `sf org login web` does, and the user in the browser. */
async function browse() {
  const server = await WebOAuthServer.create({ oauthConfig: { ...options } });
  await server.start();
  const { redirect } = await pull('approve', { authorize_url: server.getAuthorizationUrl() });
  const [info] = await Promise.all([server.authorizeAndSave(), fetch(redirect)]);
  return { code: new URL(redirect).searchParams.get('code'), info, server };
}

function jwtInfo() {
  return AuthInfo.create({ username: org.username, oauth2Options: jwt });
}

async function jwtConnection() {
  return Connection.create({ authInfo: await jwtInfo() });
}

/** With a token of another client: the library has nothing to refresh it with. */
async function tokenConnection() {
  const response = await fetch(`${org.base_url}/services/oauth2/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: org.client_id,
      client_secret: org.client_secret,
    }),
  });
  const { access_token: accessToken } = await response.json();
  const options = { accessToken, instanceUrl: org.base_url };
  const info = await AuthInfo.create({ accessTokenOptions: options });
  return Connection.create({ authInfo: info });
}

async function sfdxInfo(url) {
  const given = url ?? `force://${org.client_id}:${org.client_secret}:${await refreshToken()}@${tls.host}`;
  return AuthInfo.create({ oauth2Options: AuthInfo.parseSfdxAuthUrl(given) });
}

async function queries(conn) {
  const { records, totalSize, done } = await conn.query(query);
  assert.deepEqual([totalSize, done, records[0].Name], [1, true, 'Acme']);
}
