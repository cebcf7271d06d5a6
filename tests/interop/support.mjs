// What the tests of the node clients share: the org that `run` has started, and its controls.

import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:https';

export const org = JSON.parse(process.env.ORG);
export const orgId = '00Dxx0000001gEFEAY';
export const userId = '005xx000001SwiUAAS';

/** Uses a control of the org. */
export async function pull(lever, parameters = {}) {
  const response = await fetch(`${org.base_url}/emulator/${lever}`, {
    method: 'POST',
    body: JSON.stringify(parameters),
  });
  const answer = await response.json();
  assert.equal(response.status, 200, `${lever}: ${answer.message}`);
  return answer;
}

/** By how much each counter of the org grows during `work`. */
export async function counting(work) {
  const stats = async () => (await fetch(`${org.base_url}/emulator/stats`)).json();
  const before = await stats();
  await work();
  const after = await stats();
  return Object.fromEntries(Object.keys(after).map((name) => [name, after[name] - before[name]]));
}

/** An assertion of the JWT bearer flow. */
export function assertion(claims = {}) {
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

/** The answer to the user's consent: the callback parameters of the browser. */
export async function consent(authorizeUrl) {
  const { redirect } = await pull('approve', { authorize_url: authorizeUrl });
  assert.ok(redirect.startsWith(`${org.redirect_uri}?`), redirect);
  return Object.fromEntries(new URL(redirect).searchParams);
}

/** A refresh token of the user. */
export async function refreshToken() {
  const parameters = new URLSearchParams({
    response_type: 'code',
    client_id: org.client_id,
    redirect_uri: org.redirect_uri,
    scope: 'api web refresh_token',
  });
  const { code } = await consent(`${org.base_url}/services/oauth2/authorize?${parameters}`);
  const response = await fetch(`${org.base_url}/services/oauth2/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      code,
      client_id: org.client_id,
      client_secret: org.client_secret,
      redirect_uri: org.redirect_uri,
    }),
  });
  return (await response.json()).refresh_token;
}

/**
 * The org by https, for clients that know nothing else. Its certificate is that in TLS_CERTIFICATE, which the clients
 * trust by NODE_EXTRA_CA_CERTS.
 */
export async function overTls() {
  const server = createServer(
    { cert: readFileSync(process.env.TLS_CERTIFICATE), key: readFileSync(process.env.TLS_KEY) },
    (received, answer) => {
      const { method, headers, url: path } = received;
      const sent = request(`${org.base_url}${path}`, { method, headers }, (response) => {
        answer.writeHead(response.statusCode, response.headers);
        response.pipe(answer);
      });
      sent.on('error', () => answer.destroy());
      received.pipe(sent);
    },
  );
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    host: `127.0.0.1:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
