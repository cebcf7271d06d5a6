// Two authorization servers of other authors, and a resource server that takes their tokens: for the flows of the crate.
//
// Prints one line of JSON, and serves until it is stopped. Both servers name the resource server as the `instance_url` of
// their tokens, as Salesforce does. Both rotate refresh tokens.

import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { EmbeddedJWK, calculateJwkThumbprint, decodeProtectedHeader, jwtVerify } from 'jose';
import { OAuth2Server } from 'oauth2-mock-server';
import { Provider } from 'oidc-provider';

const app = {
  client_id: 'interop',
  client_secret: 'a secret with & and = and %',
  redirect_uri: 'http://127.0.0.1:9/callback',
};
/** The key of the app that signs assertions. */
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
/** The access tokens that the resource server accepts. */
let valid = new Set();
/** Whether proofs need a nonce, at oidc-provider and at the resource server. */
let demandsNonce = false;
/** The thumbprints of the keys that tokens are bound to. */
const keys = new Map();
/** The ids of the proofs that the resource server has seen. */
const proofIds = new Set();
const counted = { refreshes: 0, reuses: 0, refused: 0, accepted: 0, rejected: 0, proofs: 0, nonces: 0 };

// === oauth2-mock-server ===

const mock = new OAuth2Server();
await mock.issuer.keys.generate('RS256');
await mock.start(0, '127.0.0.1');
mock.issuer.url = `http://127.0.0.1:${mock.address().port}`;

// It accepts any refresh token: that only the newest one is good is checked here.
let spent = new Set();
let serial = 0;
mock.service.on('beforeTokenSigning', (token) => {
  serial += 1;
  token.payload.jti = String(serial);
});
mock.service.on('beforeResponse', (response, request) => {
  const { grant_type: grant, refresh_token: presented } = request.body;
  if (grant === 'refresh_token') {
    counted.refreshes += 1;
    if (spent.has(presented)) {
      counted.reuses += 1;
      response.statusCode = 400;
      response.body = { error: 'invalid_grant', error_description: 'the refresh token was used' };
      return;
    }
    spent.add(presented);
  }
  issue(response.body);
});

// === oidc-provider ===

// The port is in the issuer, so it is taken first.
const oidcServer = createServer();
await listen(oidcServer);
const oidc = new Provider(`http://127.0.0.1:${oidcServer.address().port}`, {
  clients: [
    {
      client_id: app.client_id,
      client_secret: app.client_secret,
      redirect_uris: [app.redirect_uri],
      response_types: ['code'],
      grant_types: [
        'authorization_code',
        'refresh_token',
        'client_credentials',
      ],
      token_endpoint_auth_method: 'client_secret_post',
    },
    {
      client_id: `${app.client_id}-basic`,
      client_secret: app.client_secret,
      redirect_uris: [app.redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
    {
      client_id: `${app.client_id}-key`,
      redirect_uris: [app.redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
    },
    {
      // It gets bound tokens only (RFC 9449).
      client_id: `${app.client_id}-dpop`,
      client_secret: app.client_secret,
      redirect_uris: [app.redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      token_endpoint_auth_method: 'client_secret_post',
      dpop_bound_access_tokens: true,
    },
    {
      client_id: `${app.client_id}-public`,
      redirect_uris: [app.redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'none',
    },
  ],
  features: {
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => demandsNonce },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  issueRefreshToken: () => true,
  rotateRefreshToken: () => true,
  ttl: { AccessToken: 3600, ClientCredentials: 3600, Grant: 3600, Interaction: 600, RefreshToken: 3600, Session: 600 },
});
oidc.use(async (context, next) => {
  await next();
  if (context.path !== '/token') {
    return;
  }
  const body = context.body ?? {};
  if (context.oidc?.params?.grant_type === 'refresh_token') {
    counted.refreshes += 1;
  }
  if (body.access_token) {
    issue(body);
    if (body.token_type === 'DPoP') {
      const { jwk } = decodeProtectedHeader(context.get('dpop'));
      keys.set(body.access_token, await calculateJwkThumbprint(jwk));
    }
  } else {
    counted.refused += 1;
  }
});
oidcServer.on('request', oidc.callback());

// === the resource server ===

const resource = createServer(async (request, response) => {
  const body = await read(request);
  const answer = (status, value) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  switch (request.url) {
    case '/control/expire':
      valid = new Set();
      return answer(200, {});
    case '/control/stats':
      return answer(200, counted);
    case '/control/demand-nonce':
      demandsNonce = body === 'true';
      return answer(200, {});
    case '/control/approve':
      return answer(200, { redirect: await approve(body) });
    default: {
      const [, scheme, token] = /^(Bearer|DPoP) (.+)$/.exec(request.headers.authorization ?? '') ?? [];
      if (valid.has(token) && (await proves(request, scheme, token, response))) {
        counted.accepted += 1;
        return answer(200, { body });
      }
      counted.rejected += 1;
      return answer(401, [{ message: 'Session expired or invalid', errorCode: 'INVALID_SESSION_ID' }]);
    }
  }
});
await listen(resource);
const instance = `http://127.0.0.1:${resource.address().port}`;
console.log(JSON.stringify({
  instance,
  mock: mock.issuer.url,
  oidc: oidc.issuer,
  private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
  ...app,
}));

// === support ===

/** Whether a request may use its token, by the proof as jose reads it. */
async function proves(request, scheme, token, response) {
  const key = keys.get(token);
  if (key === undefined || scheme === 'Bearer') {
    return key === undefined && scheme === 'Bearer';
  }
  try {
    const { payload, protectedHeader } = await jwtVerify(request.headers.dpop, EmbeddedJWK, {
      typ: 'dpop+jwt',
      algorithms: ['ES256'],
      maxTokenAge: 60,
    });
    const hash = createHash('sha256').update(token).digest('base64url');
    const uri = `http://${request.headers.host}${request.url.split('?')[0]}`;
    const isRight = (await calculateJwkThumbprint(protectedHeader.jwk)) === key
      && payload.ath === hash && payload.htm === request.method && payload.htu === uri
      && typeof payload.jti === 'string' && !proofIds.has(payload.jti);
    proofIds.add(payload.jti);
    if (isRight && demandsNonce && payload.nonce !== 'of-the-resource') {
      counted.nonces += 1;
      response.setHeader('dpop-nonce', 'of-the-resource');
      response.setHeader('www-authenticate', 'DPoP error="use_dpop_nonce"');
      return false;
    }
    counted.proofs += Number(isRight);
    return isRight;
  } catch {
    return false;
  }
}

function issue(body) {
  body.instance_url = instance;
  valid.add(body.access_token);
}

/** What the user does in a browser: logs in and allows access as often as the server asks. Returns the callback. */
async function approve(url) {
  const cookies = new Map();
  let next = { url };
  for (let step = 0; step < 20; step += 1) {
    const response = await fetch(next.url, {
      method: next.form ? 'POST' : 'GET',
      body: next.form,
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      cookies.set(name, value);
    }
    const location = response.headers.get('location');
    if (location?.startsWith(app.redirect_uri)) {
      return location;
    }
    if (location) {
      next = { url: new URL(location, next.url).href };
      continue;
    }
    const page = await response.text();
    const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1];
    const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
    if (!action || !prompt) {
      throw new Error(`no form on the page: ${response.status} ${page}`);
    }
    const form = new URLSearchParams({ prompt, login: 'user', password: 'any' });
    next = { url: new URL(action, next.url).href, form };
  }
  throw new Error('the server asks without end');
}

async function read(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
  }
  return text;
}

function listen(server) {
  return new Promise((listening) => server.listen(0, '127.0.0.1', listening));
}
