// jsforce against the org that `run` has started.

import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { beforeEach, test } from 'node:test';
import jsforce from 'jsforce';

const org = JSON.parse(process.env.ORG);
const orgId = '00Dxx0000001gEFEAY';
const userId = '005xx000001SwiUAAS';
const password = org.password + org.security_token;
const query = 'SELECT Id, Name FROM Account LIMIT 3';
const oauth2 = {
  loginUrl: org.base_url,
  clientId: org.client_id,
  clientSecret: org.client_secret,
  redirectUri: org.redirect_uri,
};

beforeEach(() => pull('rotate-refresh-tokens', { rotate: false }));

// === SOAP ===

test('SOAP login', async () => {
  const conn = new jsforce.Connection({ loginUrl: org.base_url });
  const user = await conn.login(org.username, password);
  assert.equal(user.id, userId);
  assert.equal(user.organizationId, orgId);
  assert.equal(conn.instanceUrl, org.base_url);
  await queries(conn);
});

test('SOAP login with a wrong password is refused', async () => {
  const conn = new jsforce.Connection({ loginUrl: org.base_url });
  await assert.rejects(conn.login(org.username, 'wrong'), {
    message: 'INVALID_LOGIN: Invalid username, password, security token; or user locked out.',
  });
});

test('SOAP login with an expired password is refused', async () => {
  await pull('expire-password', { expire: true });
  try {
    const conn = new jsforce.Connection({ loginUrl: org.base_url });
    await assert.rejects(conn.login(org.username, password), {
      message: 'Unable to login because the used password has expired.',
    });
  } finally {
    await pull('expire-password', { expire: false });
  }
});

test('SOAP login at a version that has none is refused', async () => {
  const conn = new jsforce.Connection({ loginUrl: org.base_url, version: '65.0' });
  await assert.rejects(conn.login(org.username, password), /^Error: INVALID_OPERATION: /);
});

test('a SOAP login is repeated when the session of a REST call has expired', async () => {
  const conn = await soapConnection();
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await queries(conn);
  });
  assert.equal(counted.data_rejected, 1);
  assert.equal(counted.logins, 1);
});

test('a SOAP login is repeated when the session of a SOAP call has expired', async () => {
  const conn = await soapConnection();
  assert.equal((await conn.soap.getUserInfo()).userName, org.username);
  const counted = await counting(async () => {
    await pull('expire-sessions');
    const user = await conn.soap.getUserInfo();
    assert.equal(user.userId, userId);
    assert.equal(user.organizationId, orgId);
    assert.equal(user.sessionSecondsValid, 7200);
    assert.equal(user.roleId, null);
  });
  assert.equal(counted.soap_rejected, 1);
  assert.equal(counted.logins, 1);
});

test('SOAP logout', async () => {
  const conn = await soapConnection();
  const { accessToken } = conn;
  const counted = await counting(() => conn.logout());
  assert.equal(counted.soap_logouts, 1);
  assert.equal(conn.accessToken, null);
  await assertDead(accessToken);
});

// === OAuth: logging in ===

test('username-password flow', async () => {
  const conn = new jsforce.Connection({ oauth2 });
  const user = await conn.login(org.username, password);
  assert.equal(user.id, userId);
  assert.equal(user.organizationId, orgId);
  assert.equal(conn.instanceUrl, org.base_url);
  await queries(conn);
  await pull('expire-sessions');
  await queries(conn);
});

test('username-password flow with a wrong password is refused', async () => {
  const conn = new jsforce.Connection({ oauth2 });
  await assert.rejects(conn.login(org.username, 'wrong'), {
    name: 'invalid_grant',
    message: 'authentication failure',
  });
});

test('web server flow', async () => {
  const conn = new jsforce.Connection({ oauth2 });
  const { code, state } = await approve(conn, { state: 'a b&c' });
  assert.equal(state, 'a b&c');
  const user = await conn.authorize(code);
  assert.equal(user.id, userId);
  assert.equal(user.organizationId, orgId);
  assert.equal(conn.instanceUrl, org.base_url);
  assert.ok(conn.refreshToken);
  await queries(conn);
});

test('web server flow with PKCE', async () => {
  const conn = new jsforce.Connection({ oauth2: { ...oauth2, useVerifier: true } });
  assert.equal(conn.oauth2.codeVerifier.length, 171);
  const { code } = await approve(conn);
  await conn.authorize(code);
  await queries(conn);
  // jsforce sends the verifier with a refresh, too.
  await pull('expire-sessions');
  await queries(conn);
});

test('web server flow with the wrong PKCE verifier is refused', async () => {
  const asking = new jsforce.Connection({ oauth2: { ...oauth2, useVerifier: true } });
  const { code } = await approve(asking);
  const redeeming = new jsforce.Connection({ oauth2: { ...oauth2, useVerifier: true } });
  await assert.rejects(redeeming.authorize(code), {
    name: 'invalid_grant',
    message: 'invalid code verifier',
  });
});

test('web server flow with a code that was used is refused', async () => {
  const conn = new jsforce.Connection({ oauth2 });
  const { code } = await approve(conn);
  await conn.authorize(code);
  await assert.rejects(conn.authorize(code), {
    name: 'invalid_grant',
    message: 'expired authorization code',
  });
});

test('web server flow with a wrong secret is refused', async () => {
  const conn = new jsforce.Connection({ oauth2: { ...oauth2, clientSecret: 'wrong' } });
  const { code } = await approve(conn);
  await assert.rejects(conn.authorize(code), {
    name: 'invalid_client',
    message: 'invalid client credentials',
  });
});

test('JWT bearer flow', async () => {
  const conn = new jsforce.Connection({ oauth2: { loginUrl: org.base_url } });
  const user = await conn.authorize({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion: assertion(),
  });
  assert.equal(user.id, userId);
  assert.equal(conn.refreshToken, undefined);
  await queries(conn);
});

test('JWT bearer flow of a connection that knows its app', async () => {
  // client_id, client_secret and redirect_uri then go with the assertion.
  const conn = new jsforce.Connection({ oauth2 });
  await conn.authorize({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion: assertion(),
  });
  await queries(conn);
});

test('JWT bearer flow with a stale assertion is refused', async () => {
  const conn = new jsforce.Connection({ oauth2: { loginUrl: org.base_url } });
  const stale = assertion({ exp: Math.floor(Date.now() / 1000) - 600 });
  const params = { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: stale };
  await assert.rejects(conn.authorize(params), { name: 'invalid_grant' });
});

test('client credentials flow', async () => {
  const conn = new jsforce.Connection({ oauth2 });
  const user = await conn.authorize({ grant_type: 'client_credentials' });
  assert.equal(user.organizationId, orgId);
  assert.equal(conn.refreshToken, undefined);
  await queries(conn);
});

// === OAuth: going on ===

test('a session that has expired is refreshed once for many calls', async () => {
  const conn = await authorizedConnection();
  const { refreshToken } = conn;
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await Promise.all(Array.from({ length: 8 }, () => queries(conn)));
  });
  assert.equal(counted.token_requests, 1);
  assert.equal(counted.tokens_issued, 1);
  assert.equal(conn.refreshToken, refreshToken);
  await pull('expire-sessions');
  await queries(conn);
});

test('under rotation jsforce refreshes once, and then presents the spent token', async () => {
  await pull('rotate-refresh-tokens', { rotate: true });
  const conn = await authorizedConnection();
  const { refreshToken } = conn;
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await queries(conn);
    assert.equal(conn.refreshToken, refreshToken, 'jsforce has learnt to rotate');
    await pull('expire-sessions');
    await assert.rejects(queries(conn), {
      message: 'Unable to refresh session due to: expired access/refresh token',
    });
  });
  assert.equal(counted.tokens_issued, 1);
  assert.equal(counted.refresh_token_reuses, 1);
});

test('under rotation jsforce goes on if the program keeps the new token', async () => {
  await pull('rotate-refresh-tokens', { rotate: true });
  const conn = await authorizedConnection();
  conn.on('refresh', (_accessToken, answer) => {
    conn.refreshToken = answer.refresh_token;
  });
  const counted = await counting(async () => {
    for (let i = 0; i < 3; i++) {
      await pull('expire-sessions');
      await queries(conn);
    }
  });
  assert.equal(counted.tokens_issued, 3);
  assert.equal(counted.refresh_token_reuses, 0);
});

test('a revoked grant cannot be refreshed', async () => {
  const conn = await authorizedConnection();
  await pull('revoke-grants');
  await pull('expire-sessions');
  await assert.rejects(queries(conn), {
    message: 'Unable to refresh session due to: expired access/refresh token',
  });
});

test('an OAuth session is good for SOAP, and refreshed there', async () => {
  const conn = await authorizedConnection();
  await pull('expire-sessions');
  assert.equal((await conn.soap.getUserInfo()).userId, userId);
});

test('JWT-based access tokens are good for REST, and jsforce keeps them from SOAP', async () => {
  await pull('issue-jwt-access-tokens', { issue: true });
  try {
    const conn = await authorizedConnection();
    assert.match(conn.accessToken, /^eyJ/);
    await queries(conn);
    await pull('expire-sessions');
    await queries(conn);
    await assert.rejects(conn.soap.getUserInfo(), /does not support JWT-based access tokens/);
  } finally {
    await pull('issue-jwt-access-tokens', { issue: false });
  }
});

// === data ===

test('create and retrieve', async () => {
  const conn = await authorizedConnection();
  const name = 'Ünïcode & <Söns>';
  const created = await conn.sobject('Account').create({ Name: name, Industry: 'Energy' });
  assert.equal(created.success, true);
  const account = await conn.sobject('Account').retrieve(created.id);
  assert.equal(account.Name, name);
  assert.equal(account.attributes.type, 'Account');
});

test('a malformed query is refused with its error code', async () => {
  const conn = await authorizedConnection();
  await assert.rejects(conn.query('SELECT'), { errorCode: 'MALFORMED_QUERY' });
});

test('API usage', async () => {
  const conn = await authorizedConnection();
  await queries(conn);
  assert.ok(conn.limitInfo.apiUsage.used > 0);
  assert.equal(conn.limitInfo.apiUsage.limit, 15000);
});

test('identity', async () => {
  for (const conn of [await authorizedConnection(), await soapConnection()]) {
    const identity = await conn.identity();
    assert.equal(identity.user_id, userId);
    assert.equal(identity.organization_id, orgId);
    assert.equal(identity.username, org.username);
  }
});

test('jsforce does not take the 403 of an identity URL for an expired session', async () => {
  const conn = await authorizedConnection();
  await pull('expire-sessions');
  await assert.rejects(conn.identity(), { errorCode: 'ERROR_HTTP_403', message: 'Bad_OAuth_Token' });
});

// === Bulk API 2.0 ===

// When the session has expired, jsforce waits for the content that it has sent once already, and never ends.
test('an ingest job', async () => {
  const conn = await authorizedConnection();
  const job = conn.bulk2.createJob({ object: 'Account', operation: 'insert' });
  await job.open();
  await job.uploadData([{ Name: 'Bulk' }, { Name: 'Bulk, Inc.' }]);
  await job.close();
  await job.poll(50, 10_000);
  const { state, numberRecordsProcessed, numberRecordsFailed } = await job.check();
  assert.deepEqual([state, numberRecordsProcessed, numberRecordsFailed], ['JobComplete', 2, 0]);
  await job.delete();
  await assert.rejects(job.check(), { name: 'NOT_FOUND' });
});

test('an ingest job that is given up', async () => {
  const conn = await authorizedConnection();
  const job = conn.bulk2.createJob({ object: 'Account', operation: 'insert' });
  await job.open();
  await job.abort();
  assert.equal((await job.check()).state, 'Aborted');
});

// === logging out ===

test('OAuth logout ends the session and leaves the refresh token', async () => {
  const conn = await authorizedConnection();
  const { accessToken, refreshToken } = conn;
  await conn.logout();
  assert.equal(conn.accessToken, null);
  await assertDead(accessToken);
  const again = new jsforce.Connection({ oauth2, refreshToken, instanceUrl: org.base_url });
  await queries(again);
});

test('OAuth logout with revocation ends the refresh token, too', async () => {
  const conn = await authorizedConnection();
  const { accessToken, refreshToken } = conn;
  await conn.logout(true);
  await assertDead(accessToken);
  await assert.rejects(new jsforce.OAuth2(oauth2).refreshToken(refreshToken), {
    name: 'invalid_grant',
    message: 'expired access/refresh token',
  });
});

test('a token that was revoked cannot be revoked again', async () => {
  const conn = await authorizedConnection();
  await conn.oauth2.revokeToken(conn.accessToken);
  await assert.rejects(conn.oauth2.revokeToken(conn.accessToken), { name: 'invalid_token' });
});

// === support ===

async function soapConnection() {
  const conn = new jsforce.Connection({ loginUrl: org.base_url });
  await conn.login(org.username, password);
  return conn;
}

async function authorizedConnection() {
  const conn = new jsforce.Connection({ oauth2 });
  const { code } = await approve(conn);
  await conn.authorize(code);
  return conn;
}

/** What the browser brings back once the user has agreed. */
async function approve(conn, params = {}) {
  const authorize_url = conn.oauth2.getAuthorizationUrl({ scope: 'api id refresh_token', ...params });
  const { redirect } = await pull('approve', { authorize_url });
  assert.ok(redirect.startsWith(`${org.redirect_uri}?`), redirect);
  return Object.fromEntries(new URL(redirect).searchParams);
}

function assertion(claims = {}) {
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const payload = {
    iss: org.client_id,
    sub: org.username,
    aud: 'https://login.salesforce.com',
    exp: Math.floor(Date.now() / 1000) + 120,
    ...claims,
  };
  const signed = `${encode({ alg: 'RS256' })}.${encode(payload)}`;
  const signature = sign('sha256', signed, readFileSync(org.jwt_private_key));
  return `${signed}.${signature.toString('base64url')}`;
}

async function queries(conn) {
  const { done, records, totalSize } = await conn.query(query);
  assert.equal(done, true);
  assert.equal(totalSize, 3);
  assert.equal(records[0].Name, 'Acme');
}

async function assertDead(accessToken) {
  const conn = new jsforce.Connection({ instanceUrl: org.base_url, accessToken });
  await assert.rejects(conn.query(query), { errorCode: 'INVALID_SESSION_ID' });
}

async function pull(lever, parameters = {}) {
  const response = await fetch(`${org.base_url}/emulator/${lever}`, {
    method: 'POST',
    body: JSON.stringify(parameters),
  });
  const answer = await response.json();
  assert.equal(response.status, 200, `${lever}: ${answer.message}`);
  return answer;
}

/** By how much each counter of the org grows during `work`. */
async function counting(work) {
  const stats = async () => (await fetch(`${org.base_url}/emulator/stats`)).json();
  const before = await stats();
  await work();
  const after = await stats();
  return Object.fromEntries(Object.keys(after).map((name) => [name, after[name] - before[name]]));
}
