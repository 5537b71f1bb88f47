// What the page does by itself, without asking the server: the language, opacity, the map with its threshold, downloads and pasting.
// It is put into the page's head, before Gradio's own scripts, which take the language from the navigator.
(() => {
  const asked = new URLSearchParams(location.search).get("lang");
  const spoken = asked || navigator.language || "en";
  const language = spoken.toLowerCase().startsWith("es") ? "es" : "en";
  if (asked) {
    Object.defineProperty(navigator, "language", { get: () => language });
    Object.defineProperty(navigator, "languages", { get: () => [language] });
  }
  document.documentElement.lang = language;
  window.bhi = { language, title: window.bhiTitles[language] };

  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // ---- the map of a region: one colour a patch, drawn anew whenever the threshold moves
  const WEAKEST = 0.12, STRONGEST = 0.72, BLUE = [0, 114, 178], ORANGE = [213, 94, 0];
  const short = (p) => p.toLocaleString(language, { minimumFractionDigits: 2, maximumFractionDigits: 4 });
  const scaled = (p, t) => (p < t ? (p - t) / Math.max(t, 1e-6) : (p - t) / Math.max(1 - t, 1e-6));

  const draw = (map) => {
    const { data, canvas, slider, t } = map;
    const image = new ImageData(data.columns, data.rows);
    let above = 0;
    data.p.forEach((p, i) => {
      const value = scaled(p, t), at = 4 * (data.y[i] * data.columns + data.x[i]);
      image.data.set([...(value < 0 ? BLUE : ORANGE), 255 * (WEAKEST + (STRONGEST - WEAKEST) * Math.abs(value))], at);
      above += p >= t;
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    const share = (above / data.p.length).toLocaleString(language, { style: "percent", maximumFractionDigits: 1, minimumFractionDigits: 1 });
    map.share.textContent = data.words.share.replace("{share}", share).replace("{above}", above.toLocaleString(language))
      .replace("{all}", data.p.length.toLocaleString(language)).replace("{threshold}", short(t));
    slider.setAttribute("aria-valuetext", short(t));
    map.number.textContent = short(t);
  };

  const move = (map, x, y) => {
    const { data, cursor } = map;
    map.x = Math.min(Math.max(x, 0), data.columns - 1);
    map.y = Math.min(Math.max(y, 0), data.rows - 1);
    const width = (100 * data.patch) / data.width, height = (100 * data.patch) / data.height;
    Object.assign(cursor.style, { display: "block", left: `${map.x * width}%`, top: `${map.y * height}%`, width: `${width}%`, height: `${height}%` });
    const i = data.index.get(map.y * data.columns + map.x);
    map.said.textContent = data.words.place.replace("{x}", map.x + 1).replace("{y}", map.y + 1) + " " +
      (i === undefined ? data.words.glass : data.words.probability.replace("{p}", short(data.p[i])));
  };

  const choose = (map) => map.root.dispatchEvent(new CustomEvent("place", {
    bubbles: true, detail: { x: map.x * map.data.patch, y: map.y * map.data.patch, threshold: map.t },
  }));

  const table = ({ data, t }) => {
    const raw = t === data.threshold_calibrated ? data.threshold : data.steps[Math.round(100 * t)];
    const rows = data.p.map((p, i) => [data.x[i] * data.patch, data.y[i] * data.patch, data.tissue[i], data.raw[i], p,
      Number(p >= t), p >= t ? "IDC+" : "IDC−", data.in_scope[i], raw, t]);
    const names = ["x", "y", "tissue", "probability", "probability_calibrated", "predicted_label", "label", "in_scope", "threshold",
      "threshold_calibrated"];
    return [names, ...rows].map((row) => row.join(",")).join("\n") + "\n";
  };

  const picture = ({ data, canvas, image }) => {
    const sheet = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    const brush = sheet.getContext("2d");
    brush.filter = "grayscale(1)";
    brush.drawImage(image, 0, 0);
    brush.filter = "none";
    brush.imageSmoothingEnabled = false;
    const across = (data.columns * data.patch) / data.width, down = (data.rows * data.patch) / data.height;
    brush.drawImage(canvas, 0, 0, sheet.width * across, sheet.height * down);
    sheet.toBlob((blob) => save("map.png", blob), "image/png");
  };

  // Gradio changes a piece of the page in place: what was listened to, and where a slider stood, stays from the answer before
  const started = new WeakMap();
  const fresh = (root) => {
    root.removeAttribute("data-fresh");
    root.style.removeProperty("--opacity");
    root.querySelectorAll("input[type=range]").forEach((slider) => (slider.value = slider.getAttribute("value")));
    root.querySelectorAll(".opacity output").forEach((said) => (said.textContent = `${said.closest(".opacity").querySelector("input").value} %`));
  };

  const start = (root) => {
    const find = (name) => root.querySelector(name);
    const known = started.get(find("canvas"));
    const map = { root, data: JSON.parse(root.dataset.map), canvas: find("canvas"), image: find("img"), slider: find(".threshold input"),
      number: find(".threshold output"), share: find(".share"), cursor: find(".cursor"), said: find(".said"), x: 0, y: 0 };
    // in force is the model's exact threshold, which the slider's steps may miss, until somebody moves it
    map.t = map.data.threshold_calibrated;
    root.removeAttribute("data-map");
    Object.assign(map.cursor.style, { display: "none" });
    map.said.textContent = "";
    Object.assign(map.canvas, { width: map.data.columns, height: map.data.rows });
    map.canvas.style.width = `${(100 * map.data.columns * map.data.patch) / map.data.width}%`;
    map.canvas.style.height = `${(100 * map.data.rows * map.data.patch) / map.data.height}%`;
    map.data.index = new Map(map.data.p.map((_, i) => [map.data.y[i] * map.data.columns + map.data.x[i], i]));
    draw(map);
    if (known) return Object.assign(known, map);
    started.set(map.canvas, map);
    map.slider.addEventListener("input", () => {
      map.t = Number(map.slider.value);
      draw(map);
    });
    const stack = find(".stack");
    stack.addEventListener("click", (event) => {
      const box = stack.getBoundingClientRect();
      move(map, Math.floor(((event.clientX - box.left) / box.width) * map.data.width / map.data.patch),
        Math.floor(((event.clientY - box.top) / box.height) * map.data.height / map.data.patch));
      choose(map);
    });
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    stack.addEventListener("keydown", (event) => {
      if (steps[event.key]) move(map, map.x + steps[event.key][0], map.y + steps[event.key][1]);
      else if (event.key === "Enter" || event.key === " ") choose(map);
      else return;
      event.preventDefault();
    });
    stack.addEventListener("focus", () => move(map, map.x, map.y));
    find(".png").addEventListener("click", () => picture(map));
    find(".csv").addEventListener("click", () => save("map.csv", new Blob(["\ufeff", table(map)], { type: "text/csv" })));
  };

  document.addEventListener("input", (event) => {
    const box = event.target.closest?.(".opacity");
    if (!box) return;
    const over = box.closest(".over");
    over.style.setProperty("--opacity", event.target.value / 100);
    box.querySelector("output").textContent = `${event.target.value} %`;
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-csv]");
    if (button) save(button.dataset.name, new Blob(["\ufeff", button.dataset.csv], { type: "text/csv" }));
  });
  // pasting: the picture goes to the box of the tab that is open, as if it had been chosen
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files;
    const box = [...document.querySelectorAll(".upload input[type=file]")].find((one) => one.closest(".upload").offsetParent);
    if (!files?.length || !box || event.target.closest?.("input:not([type=file]), textarea")) return;
    const given = new DataTransfer();
    [...files].slice(0, box.multiple ? files.length : 1).forEach((file) => given.items.add(file));
    box.files = given.files;
    box.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });
  // Gradio names neither its file inputs nor their buttons for screen readers after the box's label
  const name = () => document.querySelectorAll(".upload").forEach((box) => {
    const said = box.querySelector("label, [data-testid='block-label']")?.textContent.trim();
    box.querySelectorAll("input[type=file], button").forEach((one) => said && !one.ariaLabel && (one.ariaLabel = said));
  });
  new MutationObserver(() => {
    document.querySelectorAll("[data-fresh]").forEach(fresh);
    document.querySelectorAll("[data-map]").forEach(start);
    name();
  }).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-map", "data-fresh"] });
})();
