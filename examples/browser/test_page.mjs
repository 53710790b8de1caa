// Drives the page in a real browser, as a person would, and compares what it says with what the
// Keras model says (`expected.json`, written by `make_model.py`).
//
//     node test_page.mjs
//
// Chromium or Chrome is `$CHROMIUM`, or whichever is on the path. It leaves `screenshot.png` and
// `screenshot-phone.png`.

import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
// Float32 sums in another order; the exporter promises as much.
const TOLERANCE = 1e-5;
const DESKTOP = { width: 1000, height: 760 };
const PHONE = { width: 390, height: 844 };
const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

async function main() {
  const { server, origin } = await serve();
  const executablePath = findChromium();
  console.log(executablePath);
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  try {
    await testSettings(browser, origin);
    await testPhone(browser, origin);
    await testMissingModel(browser, origin);
  } finally {
    await browser.close();
    server.close();
  }
}

async function testSettings(browser, origin) {
  const expected = await readJson("expected.json");
  const { class_names: names, features, threshold } = await readJson("page.json");
  const { page, problems } = await open(browser, origin, DESKTOP);

  const [first, ...others] = expected;
  compare(await readResult(page), first, names);
  assert.deepEqual(await readSliders(page), first.values);

  let largest = 0;
  const counts = [0, 0];
  for (const [i, setting] of others.entries()) {
    await (i % 2 ? setByMouse : setByKeyboard)(page, features, setting.values);
    assert.deepEqual(await readSliders(page), setting.values);
    largest = Math.max(largest, compare(await readResult(page), setting, names));
    counts[setting.label] += 1;
  }
  assert(Math.min(...counts) >= 10, `too few of one label: ${counts}`);
  console.log(
    `${others.length} settings: probabilities within ${largest.toExponential(1)} of the Keras ` +
      `model's, labels equal (${counts[0]} ${names[0]}, ${counts[1]} ${names[1]})`,
  );

  await testBar(page, threshold);
  await page.screenshot({ path: join(FOLDER, "screenshot.png") });
  await testHeldKey(page);
  await page.getByRole("button", { name: "Back to the medians" }).click();
  compare(await readResult(page), first, names);
  assert.deepEqual(problems, []);
  await page.close();
}

// The bar ends at the probability, and the mark stands at the threshold.
async function testBar(page, threshold) {
  const { probability } = await readResult(page);
  const shares = await page.evaluate(() => {
    const bar = document.getElementById("bar").getBoundingClientRect();
    const mark = document.getElementById("mark").getBoundingClientRect();
    const fill = getComputedStyle(document.getElementById("bar"), "::before").width;
    return [parseFloat(fill) / bar.width, (mark.x + mark.width / 2 - bar.x) / bar.width];
  });
  // Within a pixel.
  assert(Math.abs(shares[0] - probability) < 0.004, `the bar is at ${shares[0]}`);
  assert(Math.abs(shares[1] - threshold) < 0.004, `the mark is at ${shares[1]}`);
}

// Moves faster than the model runs: what is shown in the end belongs to where the slider is.
async function testHeldKey(page) {
  const slider = page.getByRole("slider").first();
  await slider.press("Home");
  const before = await readResult(page);
  await slider.press("End");
  const after = await readResult(page);
  assert.notEqual(before.probability, after.probability);
  await slider.evaluate((element) => {
    for (let i = 0; i < 200; i++) {
      element.value = i % 2 ? element.min : element.max;
      element.dispatchEvent(new Event("input", { bubbles: true }));
    }
  });
  assert.equal((await readResult(page)).probability, before.probability);
}

async function testPhone(browser, origin) {
  const { page, problems } = await open(browser, origin, PHONE);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(width <= PHONE.width, `the page is ${width} pixels wide on a phone`);
  // The result is in view while the last slider moves.
  await page.getByRole("slider").last().press("End");
  await page.getByRole("slider").last().scrollIntoViewIfNeeded();
  const top = (await page.getByRole("meter").boundingBox()).y;
  assert(top > 0 && top < PHONE.height, `the bar is at ${top}`);
  assert.deepEqual(problems, []);
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(FOLDER, "screenshot-phone.png") });
  await page.close();
}

async function testMissingModel(browser, origin) {
  const page = await browser.newPage();
  await page.route("**/model.onnx", (route) => route.fulfill({ status: 404 }));
  await page.goto(origin);
  const message = page.getByRole("alert");
  await message.waitFor();
  assert.match(await message.textContent(), /model\.onnx is missing .* Run make_model\.py/);
  assert.equal(await page.getByRole("slider").count(), 0);
  await page.close();
}

// Opens the page, and notes whatever goes wrong in it, and all that it wants from elsewhere.
async function open(browser, origin, viewport) {
  const page = await browser.newPage({ viewport });
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("request", (request) => {
    const { protocol, origin: other } = new URL(request.url());
    if (protocol !== "data:" && other !== origin) problems.push(`request to ${request.url()}`);
  });
  await page.goto(origin);
  await page.getByRole("meter").waitFor();
  return { page, problems };
}

async function setByMouse(page, features, values) {
  for (const [i, slider] of (await page.getByRole("slider").all()).entries()) {
    const { min, max } = features[i];
    const { width, height } = await slider.boundingBox();
    const x = 1 + ((values[i] - min) / (max - min)) * (width - 2);
    await slider.click({ position: { x, y: height / 2 } });
    await stepTo(page, slider, features[i], values[i]);
  }
}

// Goes from slider to slider with the tab key, so their order is that of the table.
async function setByKeyboard(page, features, values) {
  await page.getByLabel(features[0].name, { exact: true }).focus();
  for (const [i, feature] of features.entries()) {
    if (i > 0) await page.keyboard.press("Tab");
    const slider = page.locator(":focus");
    assert.equal(await slider.getAttribute("name"), feature.name);
    await page.keyboard.press(values[i] > feature.median ? "End" : "Home");
    await stepTo(page, slider, feature, values[i]);
  }
}

// Presses keys until the slider is at `value`.
async function stepTo(page, slider, { step }, value) {
  for (let presses = 0; presses < 100; presses++) {
    const missing = Math.round((value - (await slider.inputValue())) / step);
    if (missing === 0) return;
    // A tenth of the slider.
    const leap = missing > 0 ? "PageUp" : "PageDown";
    const arrow = missing > 0 ? "ArrowRight" : "ArrowLeft";
    await page.keyboard.press(Math.abs(missing) > 15 ? leap : arrow);
  }
  assert.fail(`the slider is at ${await slider.inputValue()}, not ${value}`);
}

const readSliders = (page) =>
  page.getByRole("slider").evaluateAll((all) => all.map((slider) => slider.valueAsNumber));

async function readResult(page) {
  await page.locator("#result[aria-busy=false]").waitFor();
  return {
    probability: Number(await page.getByRole("meter").getAttribute("aria-valuenow")),
    percent: await page.locator("#percent").textContent(),
    label: await page.locator("#label").textContent(),
  };
}

// Returns how far the probabilities are from each other.
function compare(shown, { probability, label, values }, names) {
  const difference = Math.abs(shown.probability - probability);
  const where = `at ${values}: ${JSON.stringify(shown)}, expected ${probability}, ${names[label]}`;
  assert(difference <= TOLERANCE, where);
  assert.equal(shown.label, names[label], where);
  // What is written rounds to a tenth of a percent, and says so at both ends.
  const written = parseFloat(shown.percent.replace(/[<>]/, "")) / 100;
  assert(Math.abs(written - probability) <= 0.001, where);
  return difference;
}

async function serve() {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://host").pathname));
    const file = join(FOLDER, path.endsWith("/") ? `${path}index.html` : path);
    try {
      const content = await readFile(file);
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      response.end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const find = "command -v chromium || command -v chromium-browser || command -v google-chrome";
  return execSync(find, { encoding: "utf8" }).trim();
}

async function readJson(name) {
  return JSON.parse(await readFile(join(FOLDER, name), "utf8"));
}

await main();
