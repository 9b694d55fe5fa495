"""What the tests of pages in a real browser share, beside the fixture `browser`."""

SIZES = {"desk": (1200, 900), "phone": (390, 844)}

# Texts whose colour is too near to what lies behind them: a contrast below 4.5, as the W3C counts it (WCAG 2.1, 1.4.3).
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!own || !element.getClientRects().length || style.visibility === 'hidden') continue;
    const behind = [];
    for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const back = over(['white', ...behind]);
    const ink = style.fill !== 'rgb(0, 0, 0)' && element instanceof SVGElement ? style.fill : style.color;
    const front = over(['white', ...behind, ink]);
    const [low, high] = [light(back), light(front)].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.49) found.push([element.tagName, element.textContent.trim().slice(0, 40)]);
  }
  return found.slice(0, 20);
}"""
