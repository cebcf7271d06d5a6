// sf, the Salesforce CLI, against the org that `run` has started. The tests build on one another.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { counting, org, orgId, overTls, pull, refreshToken, userId } from './support.mjs';

const program = fileURLToPath(new URL('node_modules/@salesforce/cli/bin/run.js', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'sf-'));
// Without an audience it would try Salesforce's own hosts, too.
const env = { ...process.env, HOME: home, SF_AUDIENCE_URL: org.base_url };

let tls;
before(async () => {
  await pull('rotate-refresh-tokens', { rotate: false });
  tls = await overTls();
});
after(() => {
  tls.close();
  rmSync(home, { recursive: true });
});

const acme = "SELECT Id, Name FROM Account WHERE Name LIKE 'Acm%'";
const jwt = ['--username', org.username, '--instance-url', org.base_url, '--jwt-key-file', org.jwt_private_key];

// === log-in by JWT ===

// A log-in that fails removes the one that the user had: this one comes first.
test('org login jwt: an unknown consumer key is refused with its reason', async () => {
  const failure = await failed('org login jwt', ...jwt, '--client-id', 'unknown');
  assert.equal(failure.name, 'JwtGrantError');
  assert.match(failure.message, /client identifier invalid/);
});

test('org login jwt', async () => {
  const counted = await counting(async () => {
    const login = await sf('org login jwt', ...jwt, '--client-id', org.client_id, '--alias', 'emulated', '--set-default');
    assert.equal(login.username, org.username);
    assert.equal(login.orgId, orgId);
    assert.equal(login.instanceUrl, org.base_url);
    assert.equal(login.isDevHub, false);
  });
  assert.deepEqual([counted.token_requests, counted.logins], [1, 1]);
});

test('org display', async () => {
  const shown = await sf('org display', '--target-org', 'emulated');
  assert.equal(shown.connectedStatus, 'Connected');
  assert.equal(shown.id, orgId);
  assert.equal(shown.apiVersion, '68.0');
  assert.equal(shown.instanceUrl, org.base_url);
});

test('org display user', async () => {
  const shown = await sf('org display user');
  assert.equal(shown.id, userId);
  assert.equal(shown.username, org.username);
});

test('org auth show-access-token', async () => {
  const { accessToken } = await sf('org auth show-access-token');
  const response = await fetch(`${org.base_url}/services/data/v66.0/limits`, {
    headers: { authorization: `Bearer ${accessToken}` },
  });
  assert.equal(response.status, 200);
});

// === data ===

test('data query', async () => {
  const { records, totalSize } = await sf('data query', '--query', acme);
  assert.deepEqual([totalSize, records[0].Name], [1, 'Acme']);
});

test('data query for people, whose columns come from columns=true', async () => {
  const text = "SELECT Name, Industry FROM Account WHERE Name IN ('Acme', 'Globex') ORDER BY Name";
  const { stdout } = await run('data query', '--query', text);
  // On a CI server the table has no lines between its columns.
  assert.match(stdout, /NAME[\s│]+INDUSTRY[^]*Acme[\s│]+Manufacturing[^]*Globex[\s│]+Energy/);
});

test('data query as CSV', async () => {
  const text = 'SELECT Id, Name FROM Account ORDER BY Name LIMIT 1';
  const { stdout } = await run('data query', '--query', text, '--result-format', 'csv');
  assert.equal(stdout.trim(), 'Id,Name\n001xx0000000001AAA,Acme');
});

test('data query: SOQL that is not known is refused with its place', async () => {
  const failure = await failed('data query', '--query', 'SELECT Name FROM Account GROUP BY Name');
  assert.equal(failure.name, 'MALFORMED_QUERY');
  assert.match(failure.message, /Row:1:Column:26[^]*'GROUP'/);
});

let id;
test('data create record, with all values as texts', async () => {
  const values = "Name='Umbrella' NumberOfEmployees=7";
  const created = await sf('data create record', '--sobject', 'Account', '--values', values);
  assert.equal(created.success, true);
  id = created.id;
});

test('data get record', async () => {
  const found = await sf('data get record', '--sobject', 'Account', '--record-id', id);
  assert.deepEqual([found.Name, found.NumberOfEmployees], ['Umbrella', 7]);
});

test('data update record', async () => {
  const by = ['--sobject', 'Account', '--where', "Name='Umbrella'"];
  const updated = await sf('data update record', ...by, '--values', "Industry='Biotechnology'");
  assert.equal(updated.id, id);
});

test('data delete record', async () => {
  const deleted = await sf('data delete record', '--sobject', 'Account', '--record-id', id);
  assert.equal(deleted.success, true);
});

test('sobject list and describe', async () => {
  assert.deepEqual(await sf('sobject list', '--sobject', 'all'), ['Account', 'Contact', 'Organization', 'User']);
  const { fields } = await sf('sobject describe', '--sobject', 'User');
  assert.ok(fields.some(({ name }) => name === 'Username'));
});

// === expiry ===

test('data query after the session has expired', async () => {
  const counted = await counting(async () => {
    await pull('expire-sessions');
    assert.equal((await sf('data query', '--query', acme)).totalSize, 1);
  });
  assert.deepEqual([counted.data_rejected, counted.logins], [1, 1]);
});

test('data create record after the session has expired', async () => {
  const counted = await counting(async () => {
    await pull('expire-sessions');
    const created = await sf('data create record', '--sobject', 'Contact', '--values', "LastName='Late'");
    assert.equal(created.success, true);
  });
  assert.deepEqual([counted.data_rejected, counted.logins], [1, 1]);
});

test('org auth show-access-token begins a session if the last one has expired', async () => {
  await pull('expire-sessions');
  const { accessToken } = await sf('org auth show-access-token');
  const response = await fetch(`${org.base_url}/services/data/v66.0/limits`, {
    headers: { authorization: `Bearer ${accessToken}` },
  });
  assert.equal(response.status, 200);
});

// === log-in by SFDX auth URL ===

test('org logout', async () => {
  const ended = await sf('org logout', '--target-org', 'emulated', '--no-prompt');
  assert.deepEqual(ended, [org.username]);
});

test('org login sfdx-url', async () => {
  const file = join(home, 'url.txt');
  const token = await refreshToken();
  writeFileSync(file, `force://${org.client_id}:${org.client_secret}:${token}@${tls.host}`);
  const login = await sf('org login sfdx-url', '--sfdx-url-file', file, '--alias', 'by-url', '--set-default');
  assert.equal(login.username, org.username);
  assert.equal(login.instanceUrl, org.base_url);
});

test('org login sfdx-url: a malformed URL is refused with its form', async () => {
  const file = join(home, 'malformed.txt');
  writeFileSync(file, `force://${org.client_id}@${tls.host}`);
  const failure = await failed('org login sfdx-url', '--sfdx-url-file', file);
  assert.match(failure.message, /force:\/\//);
});

test('org display of a log-in by URL', async () => {
  const shown = await sf('org display', '--target-org', 'by-url');
  assert.equal(shown.connectedStatus, 'Connected');
});

test('data query after the session of a log-in by URL has expired', async () => {
  const counted = await counting(async () => {
    await pull('expire-sessions');
    assert.equal((await sf('data query', '--query', acme)).totalSize, 1);
  });
  assert.deepEqual([counted.data_rejected, counted.tokens_issued], [1, 1]);
});

test('data query after the grant was revoked says why it fails', async () => {
  await pull('revoke-grants');
  await pull('expire-sessions');
  const failure = await failed('data query', '--query', acme);
  assert.match(failure.message, /expired access\/refresh token/);
});

// === support ===

/** The result of a command. */
async function sf(command, ...options) {
  const { code, stdout, stderr } = await run(command, ...options, '--json');
  assert.equal(code, 0, `${stdout}\n${stderr}`);
  return JSON.parse(stdout).result;
}

/** The error of a command that fails. */
async function failed(command, ...options) {
  const { code, stdout, stderr } = await run(command, ...options, '--json');
  assert.notEqual(code, 0, stdout);
  // Some commands write the error to one stream, some to the other.
  return JSON.parse(stdout.trim() || stderr);
}

function run(command, ...options) {
  const parameters = [program, ...command.split(' '), ...options];
  return new Promise((resolve) => {
    execFile(process.execPath, parameters, { env, cwd: home, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? -1) : 0, stdout, stderr });
    });
  });
}
