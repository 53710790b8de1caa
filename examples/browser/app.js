// The page: sliders in, probability and label out of `model.onnx`, at every move.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

// More threads need a page that is isolated from other origins, and this model needs none.
ort.env.wasm.numThreads = 1;

const $ = (id) => document.getElementById(id);

async function main() {
  // The label comes from the file. Its class names and threshold are in there too, in
  // `metadata_props`, but onnxruntime-web gives only the names, types and shapes of inputs and
  // outputs: `make_model.py` copies them into `page.json`.
  const [page, session] = await Promise.all([
    load("page.json").then((response) => response.json()),
    load("model.onnx")
      .then((response) => response.arrayBuffer())
      .then((model) => ort.InferenceSession.create(model)),
  ]);
  const sliders = page.features.map(addFeature);
  showPage(page);

  const judge = latestOnly(async () => {
    const values = Float32Array.from(sliders, (slider) => slider.valueAsNumber);
    const features = new ort.Tensor("float32", values, [1, values.length]);
    const { probability, label } = await session.run({ features });
    showResult(page, probability.data[0], label.data[0]);
  });
  const update = () => {
    sliders.forEach(showValue);
    $("result").ariaBusy = "true";
    judge().catch(showError);
  };
  $("form").addEventListener("input", update);
  $("form").addEventListener("reset", (event) => {
    // The browser would put them back only after the event.
    event.preventDefault();
    for (const slider of sliders) slider.value = slider.defaultValue;
    update();
  });
  $("form").addEventListener("submit", (event) => event.preventDefault());
  update();
}

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) {
    throw new Error(`${path} is missing (${response.status}). Run make_model.py, then reload.`);
  }
  return response;
}

// A session does one run at a time. What moves meanwhile is judged once that is done.
function latestOnly(work) {
  let isRunning = false;
  let isStale = false;
  return async () => {
    isStale = true;
    if (isRunning) return;
    isRunning = true;
    try {
      while (isStale) {
        isStale = false;
        await work();
      }
      $("result").ariaBusy = "false";
    } finally {
      isRunning = false;
    }
  };
}

function addFeature(feature, i) {
  const slider = make("input", { type: "range", id: `feature-${i}`, name: feature.name });
  slider.min = feature.min;
  slider.max = feature.max;
  slider.step = feature.step;
  slider.defaultValue = feature.median;
  slider.dataset.unit = feature.unit ?? "";
  slider.setAttribute("aria-describedby", `description-${i}`);

  const label = make("label", { htmlFor: slider.id, textContent: feature.name });
  // The slider itself tells its value to screen readers.
  const value = make("output", { id: `value-${i}`, ariaHidden: "true" });
  value.setAttribute("aria-live", "off");
  const description = make("span", { id: `description-${i}`, className: "soft" });
  description.textContent = feature.description;

  const row = make("div", { className: "feature" });
  row.append(label, value, description, slider);
  $("features").append(row);
  return slider;
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function showPage({ class_names: names, threshold, cost_fn: cost, test }) {
  $("positive-name").textContent = names[1];
  $("mark-name").textContent = `threshold ${formatPercent(threshold)}`;
  $("scale").style.setProperty("--threshold", threshold);
  $("facts").textContent =
    `Of ${test.positives} ${names[1]} tumours that the model had never seen, it missed ` +
    `${test.missed}; it raised ${test.false_alarms} false alarms among ${test.negatives} ` +
    `${names[0]} ones. Its threshold is the one with the lowest cost, where a missed ` +
    `${names[1]} tumour costs as much as ${cost} false alarms.`;
  $("result").hidden = $("form").hidden = false;
}

function showValue(slider) {
  const decimals = slider.step.split(".")[1]?.length ?? 0;
  const text = `${slider.valueAsNumber.toFixed(decimals)} ${slider.dataset.unit}`.trim();
  slider.ariaValueText = text;
  $(slider.id.replace("feature", "value")).textContent = text;
}

function showResult({ class_names: names, threshold }, probability, label) {
  const text = formatPercent(probability);
  // Set only when it changes, so that it is read aloud only then.
  if ($("label").textContent !== names[label]) $("label").textContent = names[label];
  $("result").classList.toggle("positive", label === 1);
  $("percent").textContent = text;
  $("scale").style.setProperty("--probability", probability);
  $("bar").ariaValueNow = probability;
  $("bar").ariaValueText = text;
  const side = label === 1 ? "Above" : "Not above";
  $("reason").textContent = `${side} the threshold of ${formatPercent(threshold)}: ${names[label]}.`;
}

function formatPercent(probability) {
  if (probability < 0.001) return "< 0.1 %";
  if (probability > 0.999) return "> 99.9 %";
  return `${(100 * probability).toFixed(1)} %`;
}

function showError(error) {
  $("message").textContent = error.message;
  $("message").hidden = false;
  $("result").hidden = $("form").hidden = true;
}

main().catch(showError);
