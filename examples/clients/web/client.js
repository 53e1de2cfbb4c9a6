// A bundle in the browser: text and picture in, label out, all in the page.
// For bundles of classification on texts and pictures.
import * as ort from "onnxruntime-web";
import { Tokenizer } from "@huggingface/tokenizers";

ort.env.wasm.numThreads = 1; // more need a page that is isolated from other origins

const fetched = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
};

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Fetch a file of the bundle; what is not as bundle.json says is refused. */
async function verified(base, card, name) {
  const data = await fetched(base + name);
  const digest = hex(await crypto.subtle.digest("SHA-256", data));
  if (digest !== card.files[name].sha256) throw new Error(`${name} is altered`);
  return data;
}

const parsed = (data) => JSON.parse(new TextDecoder().decode(data));

/** Load a bundle from a folder's URL, with a slash at its end. */
export async function load(base) {
  const card = parsed(await fetched(`${base}bundle.json`));
  const weights = Object.keys(card.files).filter((name) => name.startsWith("model.onnx."));
  const externalData = await Promise.all(
    weights.map(async (path) => ({ path, data: new Uint8Array(await verified(base, card, path)) })),
  );
  const graph = new Uint8Array(await verified(base, card, "model.onnx"));
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], externalData });
  const text = card.modalities.includes("text") ? parsed(await verified(base, card, "tokenizer.json")) : null;
  return { card, session, encode: text && encoder(text) };
}

/** Return what makes token ids of a text, from the contents of tokenizer.json. */
export function encoder(json) {
  const tokenizer = new Tokenizer(json, {});
  const most = json.truncation?.max_length ?? Infinity;
  const lowers = /"lowercase":true|"Lowercase"/.test(JSON.stringify(json.normalizer));
  // At a word's end JavaScript lowers Σ to ς; the tokenizers library, by which the model was trained, does not.
  return (text) => cut(tokenizer, lowers ? text.replaceAll("Σ", "σ") : text, most);
}

/** Cut as tokenizer.json says: the library in the browser does not. Special tokens at the ends stay. */
function cut(tokenizer, text, most) {
  const whole = tokenizer.encode(text).ids;
  if (whole.length <= most) return whole;
  const bare = tokenizer.encode(text, { add_special_tokens: false }).ids;
  const before = whole.findIndex((_, at) => bare.every((id, number) => whole[at + number] === id));
  const after = whole.slice(before + bare.length);
  return [...whole.slice(0, before), ...bare.slice(0, most - before - after.length), ...after];
}

/** Pixels of a picture file, RGB bytes: upright, transparency laid on white, colours as they stand in the file. */
export async function pixels(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, rgb: data.filter((_, at) => at % 4 < 3) };
}

const int64 = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
const flag = (value) => new ort.Tensor("bool", Uint8Array.of(value ? 1 : 0), [1]);

/** Answer a row: a text, a picture file, or both; null for what is missing. */
export async function answer(bundle, text, image) {
  const feeds = {};
  if (bundle.card.modalities.includes("text")) {
    const ids = bundle.encode(text ?? "");
    feeds.input_ids = int64(ids);
    feeds.attention_mask = int64(ids.map(() => 1));
    feeds.has_text = flag(text !== null);
  }
  if (bundle.card.modalities.includes("image")) {
    const { width, height, rgb } = image ? await pixels(image) : { width: 1, height: 1, rgb: new Uint8Array(3) };
    feeds.pixels = new ort.Tensor("uint8", new Uint8Array(rgb), [1, height, width, 3]);
    feeds.has_image = flag(image !== null);
  }
  const { probabilities } = await bundle.session.run(feeds, ["probabilities"]);
  const named = bundle.card.labels.map((label, at) => [label, probabilities.data[at]]);
  const [label] = named.reduce((best, one) => (one[1] > best[1] ? one : best));
  return { label, probabilities: Object.fromEntries(named) };
}
