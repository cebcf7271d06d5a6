// jsforce against the org that `run` has started.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import jsforce from 'jsforce';
import { assertion, counting, org, orgId, pull, userId } from './support.mjs';

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

test('the user as a record: by id, by name, after the session has expired', async () => {
  const users = (await authorizedConnection()).sobject('User');
  assert.equal((await users.retrieve(userId)).Username, org.username);
  await pull('expire-sessions');
  const found = await users.findOne({ Username: org.username }, ['Id', 'Name', 'IsActive']);
  assert.deepEqual([found.Id, found.Name, found.IsActive], [userId, 'Ann Example', true]);
});

test('a query of the user after the session of a SOAP login has expired', async () => {
  const conn = await soapConnection();
  const counted = await counting(async () => {
    await pull('expire-sessions');
    const { records } = await conn.query(`SELECT Username FROM User WHERE Id = '${userId}'`);
    assert.equal(records[0].Username, org.username);
  });
  assert.equal(counted.logins, 1);
});

test('eight users of one expired session cost one refresh', async () => {
  const conn = await authorizedConnection();
  const counted = await counting(async () => {
    await pull('expire-sessions');
    await Promise.all(Array.from({ length: 8 }, () => conn.sobject('User').retrieve(userId)));
  });
  assert.equal(counted.tokens_issued, 1);
});

test('the user cannot be created', async () => {
  const conn = await authorizedConnection();
  const creating = conn.sobject('User').create({ Username: 'other@example.com' });
  await assert.rejects(creating, { errorCode: 'METHOD_NOT_ALLOWED' });
});

test('conditions that jsforce writes as SOQL, update and delete', async () => {
  const accounts = (await authorizedConnection()).sobject('Account');
  const { id } = await accounts.create({ Name: "O'Hara & Sons", NumberOfEmployees: 7 });
  const found = await accounts.find({
    $or: [{ Name: "O'Hara & Sons" }, { Name: { $like: 'Nothing%' } }],
    NumberOfEmployees: { $gte: 7, $lt: 8 },
    Id: { $in: [id] },
    Website: null,
  });
  assert.deepEqual(found.map(({ Id }) => Id), [id]);
  assert.ok((await accounts.update({ Id: id, Name: 'Renamed' })).success);
  assert.equal((await accounts.retrieve(id)).Name, 'Renamed');
  assert.ok((await accounts.destroy(id)).success);
  await assert.rejects(accounts.retrieve(id), { errorCode: 'NOT_FOUND' });
});

test('jsforce does not escape a backslash in a condition', async () => {
  const accounts = (await authorizedConnection()).sobject('Account');
  await assert.rejects(accounts.findOne({ Name: 'a \\ b' }), { errorCode: 'MALFORMED_QUERY' });
});

test('an order, a limit, an offset and a count', async () => {
  const accounts = (await authorizedConnection()).sobject('Account');
  const names = { Name: { $in: ['Acme', 'Globex', 'Initech'] } };
  const found = await accounts.find(names, ['Name']).sort({ Name: -1 }).skip(1).limit(1);
  assert.deepEqual(found.map(({ Name }) => Name), ['Globex']);
  assert.equal(await accounts.count(names), 3);
});

test('many records at once, and their pages', async () => {
  const conn = await authorizedConnection();
  const batch = Array.from({ length: 200 }, (_, number) => ({ LastName: `Many ${number}` }));
  for (let part = 0; part < 3; part += 1) {
    const created = await conn.sobject('Contact').create(batch, { allOrNone: true });
    assert.ok(created.every(({ success }) => success));
  }
  const text = "SELECT Id FROM Contact WHERE LastName LIKE 'Many%'";
  const options = { headers: { 'Sforce-Query-Options': 'batchSize=200' } };
  let page = await conn.query(text, options);
  const sizes = [page.records.length];
  while (!page.done) {
    page = await conn.queryMore(page.nextRecordsUrl, options);
    sizes.push(page.records.length);
  }
  assert.deepEqual(sizes, [200, 200, 200]);
  const all = await conn.query(text).execute({ autoFetch: true, maxFetch: 1000 });
  assert.equal((all.records ?? all).length, 600);
});

test('one wrong record of many takes back the others', async () => {
  const conn = await authorizedConnection();
  const records = [{ LastName: 'Good' }, { FirstName: 'No last name' }];
  const created = await conn.sobject('Contact').create(records, { allOrNone: true });
  assert.deepEqual(created.map(({ success }) => success), [false, false]);
  assert.equal(await conn.sobject('Contact').count({ LastName: 'Good' }), 0);
});

test('the objects, and the fields of one', async () => {
  const conn = await authorizedConnection();
  const { sobjects } = await conn.describeGlobal();
  assert.deepEqual(sobjects.map(({ name }) => name), ['Account', 'Contact', 'Organization', 'User']);
  const { fields } = await conn.describe('Contact');
  assert.deepEqual(fields.find(({ name }) => name === 'AccountId').referenceTo, ['Account']);
});

test('a composite request', async () => {
  const conn = await authorizedConnection();
  const base = `/services/data/v${conn.version}`;
  const { compositeResponse } = await conn.requestPost(`${base}/composite`, {
    compositeRequest: [
      { method: 'POST', url: `${base}/sobjects/Account`, referenceId: 'made', body: { Name: 'Composite' } },
      { method: 'GET', url: `${base}/sobjects/Account/@{made.id}`, referenceId: 'read' },
    ],
  });
  assert.deepEqual(compositeResponse.map(({ httpStatusCode }) => httpStatusCode), [201, 200]);
  assert.equal(compositeResponse[1].body.Name, 'Composite');
});

test('a retired version is gone in REST, and unsupported in SOAP', async () => {
  const { accessToken } = await authorizedConnection();
  const retired = { instanceUrl: org.base_url, accessToken, version: '30.0' };
  await assert.rejects(new jsforce.Connection(retired).query(query), { errorCode: 'UNSUPPORTED_API_VERSION' });
  const old = new jsforce.Connection({ loginUrl: org.base_url, version: '30.0' });
  await assert.rejects(old.login(org.username, password), /UNSUPPORTED_API_VERSION/);
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
