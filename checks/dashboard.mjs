// The dashboard of the example server in a real browser: node checks/dashboard.mjs SERVER CHROMIUM FOLDER
//
// FOLDER has node_modules with playwright-core and axe-core, and gets the screenshots. dashboard.sh runs this.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

const [program, executablePath, folder] = process.argv.slice(2).map((name) => path.resolve(name));
const require = createRequire(path.resolve(folder, 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const root = path.resolve(import.meta.dirname, '..');

// === the server ===

const home = mkdtempSync(path.join(tmpdir(), 'dashboard-'));
const files = path.join(home, 'files');
mkdirSync(files);
writeFileSync(path.join(files, 'greeting'), 'hello');
// Whoever opens it for reading waits for a writer.
const pipe = path.join(files, 'pipe');
execFileSync('mkfifo', [pipe]);
writeFileSync(path.join(home, 'config.yaml'), `
general: { verbose: true }
performance:
  workers: 2
  thread_pools:
    io_workers: 8
    cpu: { workers: 4, queue_capacity: 30 }
    inference_workers: 4
    embedding_workers: 4
    db_workers: 4
  routes:
    POST /v1/hash: cpu
    GET /files/{*path}: io
app:
  files_dir: ${files}
  model: ${root}/examples/server/model/digits.onnx
`);
const server = spawn(program, ['--bind', '127.0.0.1:0'], { cwd: home, stdio: ['ignore', 'pipe', 'ignore'] });
const ended = new Promise((resolve) => server.on('exit', resolve));
process.on('exit', () => server.kill('SIGKILL'));
const base = await new Promise((resolve) => {
  let text = '';
  server.stdout.on('data', (data) => {
    text += data;
    const found = /live: (http:\S+)/.exec(text);
    if (found) resolve(found[1]);
  });
});
const agent = new http.Agent({ keepAlive: true, maxSockets: 200 });

function ask(method, target, body, headers = {}, begun = () => {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(new URL(target, base), { method, agent, headers: { 'content-type': 'application/json', ...headers } });
    request.on('error', reject);
    request.on('response', (response) => {
      begun();
      let text = '';
      response.on('data', (data) => { text += data; });
      response.on('end', () => resolve({ status: response.statusCode, text }));
      response.on('error', reject);
    });
    request.end(body);
  });
}

/** Hashes passwords without a pause until the result is called. */
function load(clients) {
  let on = true;
  const one = async () => {
    while (on) {
      const { status } = await ask('POST', '/v1/hash', '{"password":"correct horse"}');
      if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const all = Array.from({ length: clients }, one);
  return async () => { on = false; await Promise.all(all); };
}

// === the browser ===

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const faults = [];

async function open(options = {}, url = base) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(90_000);
  const page = await context.newPage();
  const origin = new URL(url).origin;
  page.on('request', (request) => {
    if (!request.url().startsWith('data:') && new URL(request.url()).origin !== origin) faults.push(`asked ${request.url()}`);
  });
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) faults.push(message.text()); });
  page.on('pageerror', (error) => faults.push(String(error)));
  await page.goto(url);
  return page;
}

const text = (page, query) => page.locator(query).first().textContent();
const says = (page, query, pattern) => page.waitForFunction(
  ([query, source]) => new RegExp(source).test(document.querySelector(query)?.textContent),
  [query, pattern.source],
);
const live = (page) => page.waitForFunction(() => document.getElementById('live').textContent === 'Live');

async function serious(page) {
  const result = await page.evaluate(`${axe}; axe.run()`);
  return result.violations.filter((found) => ['serious', 'critical'].includes(found.impact))
    .map((found) => `${found.id}: ${found.nodes.map((node) => node.target).join(', ')}`);
}

async function shoot(page, name) {
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
}

const done = (what) => console.log(`ok  ${what}`);

// The page is drawn at once.
const page = await open({ colorScheme: 'light' });
await live(page);
await page.reload();
await live(page);
// Chromium notes a paint when it is shown, which may be after the page's first event.
const paint = await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
done(`first paint after ${Math.round(await paint.jsonValue())} ms`);

// A pool that has too much to do.
const stop = load(60);
await page.waitForFunction(() => document.getElementById('summary').dataset.mood === 'bad');
await says(page, '#summary', /cpu: .*rejecting/);
// Running tasks are listed, and the lines of the pool are drawn.
await says(page, '#tasks tr th', /^cpu #\d+$/);
await page.waitForFunction(() => {
  const lines = [...document.querySelectorAll('.card')[1].querySelectorAll('svg .line')];
  return lines.length > 0 && lines.every((line) => line.getAttribute('d').length > 40);
});
done(`overload: ${await text(page, '#summary')}`);
for (const colorScheme of ['light', 'dark']) {
  const shown = await open({ colorScheme });
  await live(shown);
  await shown.waitForTimeout(1500);
  assert.deepEqual(await serious(shown), [], colorScheme);
  await shoot(shown, `overload-${colorScheme}`);
  await shown.context().close();
}
done('axe finds nothing serious, light and dark');
const narrow = await open({ viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
await live(narrow);
await narrow.waitForTimeout(1500);
assert.ok((await narrow.evaluate(() => document.documentElement.scrollWidth)) <= 360, 'it scrolls sideways');
assert.deepEqual(await serious(narrow), [], 'narrow');
await shoot(narrow, 'narrow');
await narrow.context().close();
done('360 px without sideways scrolling');
await stop();

// With its next tick, the page has the numbers of the stats.
const stats = JSON.parse((await ask('GET', '/health/thread-pools')).text).pools;
const counted = Object.values(stats).map((pool) => Object.entries(pool.results)
  .filter(([result, count]) => count > 0 || result === 'ok')
  .map(([result, count]) => `${count} ${result}`).join(' · '));
await page.waitForFunction(
  (counted) => counted.every((results, index) => document.querySelectorAll('.card')[index]
    .querySelector('.more dd').textContent.replaceAll(',', '') === results),
  counted,
);
done('the numbers are those of the stats');

// A task that is stuck has a mark at the top of the page and in the list, and is gone when it ends.
await ask('GET', '/files/greeting');
const stuck = ask('GET', '/files/pipe?key=SECRET', undefined, { authorization: 'Bearer SECRET' });
await says(page, '#summary', /io: stuck/);
assert.equal(await page.locator('#summary').getAttribute('data-mood'), 'bad');
assert.match(await text(page, '#stuck'), /^Stuck: io #\d+ GET \/files\/pipe, running for /);
assert.match(await page.locator('#tasks tr.stuck').innerText(), /^io #\d+\s+GET \/files\/pipe\s.*stuck: /);
assert.ok(!(await page.content()).includes('SECRET'));
assert.deepEqual(await serious(page), [], 'stuck');
await shoot(page, 'stuck');
const small = await open({ viewport: { width: 360, height: 740 } });
await live(small);
await small.locator('#stuck').waitFor();
assert.ok((await small.evaluate(() => document.documentElement.scrollWidth)) <= 360, 'it scrolls sideways');
await shoot(small, 'stuck-narrow');
await small.context().close();
writeFileSync(pipe, 'at last');
assert.equal((await stuck).status, 200);
await page.waitForFunction(() => document.getElementById('stuck').hidden && !/stuck/.test(document.getElementById('summary').textContent));
done('a stuck task is marked at the top and in the list, while it is stuck');

// By keyboard.
await page.keyboard.press('Tab');
assert.equal(await page.evaluate(() => document.activeElement.id), 'pause');
await page.keyboard.press('Enter');
await says(page, '#live', /^Paused$/);
await page.keyboard.press('Enter');
await live(page);
await page.keyboard.press('Tab');
await page.keyboard.press('Enter');
await page.waitForFunction(() => location.hash === '#pool-0');
done('keyboard');

// Without JavaScript.
const plain = await open({ javaScriptEnabled: false, viewport: { width: 360, height: 740 } });
assert.match(await plain.locator('table').first().innerText(), /cpu[\s\S]*embedding/);
assert.match(await plain.locator('noscript').innerText(), /Load it again/);
await shoot(plain, 'plain');
await plain.context().close();
done('without JavaScript');

// Behind a proxy that removes a prefix.
const proxy = http.createServer((request, response) => {
  const inner = http.request(new URL(request.url.replace(/^\/admin\/pools\/?/, '/'), base), { method: request.method, headers: request.headers });
  inner.on('response', (answer) => { response.writeHead(answer.statusCode, answer.headers); answer.pipe(response); });
  response.on('close', () => inner.destroy());
  inner.on('error', () => response.destroy());
  request.pipe(inner);
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
for (const mounted of ['/admin/pools', '/admin/pools/']) {
  const behind = await open({}, `http://127.0.0.1:${proxy.address().port}${mounted}`);
  await live(behind);
  await behind.context().close();
}
proxy.close();
proxy.closeAllConnections();
done('behind a prefix, with and without a slash at its end');

// A drain with fifty viewers. The page notices, and the server does not wait for it.
const viewers = [];
const connected = Array.from({ length: 50 }, () => new Promise((begun) => {
  viewers.push(ask('GET', '/', undefined, { accept: 'text/event-stream' }, begun));
}));
await Promise.all(connected);
assert.deepEqual(faults, []);
const begun = Date.now();
server.kill('SIGTERM');
const code = await Promise.race([ended, new Promise((resolve) => setTimeout(() => resolve('still runs'), 20_000))]);
assert.equal(code, 0);
const took = Date.now() - begun;
for (const viewer of await Promise.all(viewers)) assert.match(viewer.text, /event: drain\ndata:\n\n$/);
await page.waitForFunction(() => /trying again/.test(document.getElementById('live').textContent));
done(`a drain with fifty viewers took ${took} ms`);
await browser.close();
console.log('ok');
