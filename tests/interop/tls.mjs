// The org by https, for a client in another language. Prints its host, and serves until it is ended.

import { overTls } from './support.mjs';

const { host } = await overTls();
console.log(host);
