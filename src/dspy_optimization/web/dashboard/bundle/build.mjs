// npm install && npm run build   (in a copy of this folder; node_modules and lock file stay out of the repository)
// OUT names the folder to write to; without it ../static/vendor.
import { createHash } from "node:crypto";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const out = process.env.OUT ?? new URL("../static/vendor/", import.meta.url).pathname;
const versionOf = async (name) => JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8")).version;

await build({
  entryPoints: ["echarts.mjs"],
  outfile: `${out}/echarts.js`,
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  legalComments: "none",
  banner: { js: "/* Apache ECharts (Apache-2.0) with zrender (BSD-3-Clause) and tslib (0BSD); see the LICENSE files. */" },
});
await copyFile("node_modules/echarts/LICENSE", `${out}/LICENSE-echarts.txt`);
await copyFile("node_modules/zrender/LICENSE", `${out}/LICENSE-zrender.txt`);
await copyFile("node_modules/tslib/LICENSE.txt", `${out}/LICENSE-tslib.txt`);
await copyFile("node_modules/echarts/NOTICE", `${out}/NOTICE-echarts.txt`);

const files = ["echarts.js", "LICENSE-echarts.txt", "LICENSE-zrender.txt", "LICENSE-tslib.txt", "NOTICE-echarts.txt"];
const manifest = {
  packages: Object.fromEntries(await Promise.all(["echarts", "zrender", "tslib", "esbuild"].map(async (name) => [name, await versionOf(name)]))),
  sha256: Object.fromEntries(
    await Promise.all(files.map(async (name) => [name, createHash("sha256").update(await readFile(`${out}/${name}`)).digest("hex")])),
  ),
};
await writeFile(`${out}/manifest.json`, `${JSON.stringify(manifest, null, 2)}\n`);
