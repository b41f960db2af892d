// Charts in the colours of the page. The library is fetched when the first one is drawn.

import { el } from "./dom.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const STAR = "path://M10 0l3 7 7 .6-5.3 4.7 1.600 7.200L10 15.600 3.700 19.500l1.600-7.200L0 7.600 7 7z";

export function palette() {
  return {
    ink: colour("ink"), quiet: colour("ink-2"), faint: colour("ink-3"), line: colour("line"), card: colour("card"),
    good: colour("good"), bad: colour("bad"), accent: colour("accent"),
    series: [1, 2, 3, 4, 5, 6].map((place) => colour(`series-${place}`)),
    font: getComputedStyle(document.body).fontFamily,
  };
}

// A chart that draws `option(palette)` again whenever it is told new facts, its size changes or the theme does.
export class Chart {
  constructor({ label, low = false }) {
    this.node = el("div", { class: `chart${low ? " low" : ""}`, role: "img", "aria-label": label, "data-own": "chart" });
    this.option = null;
    this.chart = null;
    document.addEventListener("theme", () => this.draw(true));
  }

  async show(option) {
    this.option = option;
    if (!this.chart) {
      const { init } = await import("../vendor/echarts.js");
      if (this.chart) return this.draw();
      this.chart = init(this.node, null, { renderer: "canvas" });
      new ResizeObserver(() => this.node.clientWidth && this.chart.resize()).observe(this.node);
      this.onReady?.(this.chart);
    }
    return this.draw();
  }

  draw(anew = false) {
    if (this.chart && this.option) this.chart.setOption(this.option(palette()), anew);
  }
}

export function tooltip(colours) {
  // As text on the canvas: a tooltip of HTML would need styles written into the page.
  return { renderMode: "richText", backgroundColor: colours.card, borderColor: colours.line, textStyle: { color: colours.ink, fontFamily: colours.font, fontSize: 13 }, confine: true };
}

export function axis(colours, name, more = {}) {
  return {
    type: "value", name, nameLocation: "middle", nameTextStyle: { color: colours.quiet, fontSize: 12.5, fontFamily: colours.font },
    axisLabel: { color: colours.quiet, fontFamily: colours.font, fontSize: 12, hideOverlap: true }, axisLine: { show: true, lineStyle: { color: colours.line } },
    splitLine: { lineStyle: { color: colours.line, type: "dashed" } }, axisTick: { show: false }, ...more,
  };
}
