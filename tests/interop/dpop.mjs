// Proofs of possession (RFC 9449) that jose makes, against the org that `run` has started.

import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { after, beforeEach, test } from 'node:test';
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';
import { counting, org, pull } from './support.mjs';

const tokenUrl = `${org.base_url}/services/oauth2/token`;
const limitsUrl = `${org.base_url}/services/data/v66.0/limits`;

async function key(algorithm = 'ES256') {
  const { privateKey, publicKey } = await generateKeyPair(algorithm);
  return { algorithm, privateKey, jwk: await exportJWK(publicKey) };
}

function proof({ algorithm, privateKey, jwk }, htm, htu, claims = {}) {
  const { iat = Math.floor(Date.now() / 1000), ...others } = claims;
  return new SignJWT({ htm, htu, jti: randomUUID(), iat, ...others })
    .setProtectedHeader({ typ: 'dpop+jwt', alg: algorithm, jwk })
    .sign(privateKey);
}

async function ask(dpop) {
  const response = await fetch(tokenUrl, {
    method: 'POST',
    headers: dpop ? { dpop } : {},
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: org.client_id,
      client_secret: org.client_secret,
    }),
  });
  return { status: response.status, nonce: response.headers.get('dpop-nonce'), ...(await response.json()) };
}

async function call(scheme, token, dpop) {
  const headers = { authorization: `${scheme} ${token}`, ...(dpop && { dpop }) };
  return (await fetch(limitsUrl, { headers })).status;
}

beforeEach(() => pull('require-dpop', { required: true }));
after(async () => {
  await pull('require-dpop', { required: false });
  await pull('require-dpop-nonce', { required: false });
});

test('a proof gets a bound token, which needs a proof of the same key', async () => {
  const ours = await key();
  const counted = await counting(async () => {
    const { token_type: type, access_token: token } = await ask(await proof(ours, 'POST', tokenUrl));
    assert.equal(type, 'DPoP');
    const ath = createHash('sha256').update(token).digest('base64url');
    const good = await proof(ours, 'GET', limitsUrl, { ath });
    assert.equal(await call('DPoP', token, good), 200);
    assert.equal(await call('DPoP', token, good), 401, 'the same proof again');
    assert.equal(await call('DPoP', token), 401, 'no proof');
    assert.equal(await call('Bearer', token, await proof(ours, 'GET', limitsUrl, { ath })), 401);
    assert.equal(await call('DPoP', token, await proof(ours, 'GET', limitsUrl)), 401, 'no hash');
    assert.equal(await call('DPoP', token, await proof(await key(), 'GET', limitsUrl, { ath })), 401, 'another key');
    assert.equal(await call('DPoP', token, await proof(ours, 'GET', `${limitsUrl}?a=b`, { ath })), 401);
  });
  assert.equal(counted.dpop_proofs_accepted, 2);
});

test('a wrong proof is refused with its reason', async () => {
  const ours = await key();
  const now = Math.floor(Date.now() / 1000);
  for (const [made, reason] of [
    [proof(ours, 'GET', tokenUrl), /htm/],
    [proof(ours, 'POST', 'https://example.com/'), /htu/],
    [proof(ours, 'POST', tokenUrl, { iat: now - 3600 }), /iat/],
    [proof(await key('ES384'), 'POST', tokenUrl), /alg/],
    [undefined, /requires/],
  ]) {
    const answer = await ask(await made);
    assert.equal(answer.status, 400);
    assert.equal(answer.error, 'invalid_dpop_proof');
    assert.match(answer.error_description, reason);
  }
});

test('a nonce is demanded, and accepted until it rotates', async () => {
  const ours = await key();
  await pull('require-dpop-nonce', { required: true });
  const first = await ask(await proof(ours, 'POST', tokenUrl));
  assert.equal(first.error, 'use_dpop_nonce');
  const second = await ask(await proof(ours, 'POST', tokenUrl, { nonce: first.nonce }));
  assert.equal(second.token_type, 'DPoP');
  await pull('rotate-dpop-nonce');
  const third = await ask(await proof(ours, 'POST', tokenUrl, { nonce: second.nonce }));
  assert.equal(third.error, 'use_dpop_nonce');
  await pull('require-dpop-nonce', { required: false });
});

test('a code is bound to the thumbprint that jose computes', async () => {
  const ours = await key();
  const parameters = new URLSearchParams({
    response_type: 'code',
    client_id: org.client_id,
    redirect_uri: org.redirect_uri,
    dpop_jkt: await calculateJwkThumbprint(ours.jwk),
  });
  for (const [asking, status] of [[await key(), 400], [ours, 200]]) {
    const authorize_url = `${org.base_url}/services/oauth2/authorize?${parameters}`;
    const { redirect } = await pull('approve', { authorize_url });
    const response = await fetch(tokenUrl, {
      method: 'POST',
      headers: { dpop: await proof(asking, 'POST', tokenUrl) },
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: new URL(redirect).searchParams.get('code'),
        client_id: org.client_id,
        client_secret: org.client_secret,
        redirect_uri: org.redirect_uri,
      }),
    });
    assert.equal(response.status, status);
  }
});
