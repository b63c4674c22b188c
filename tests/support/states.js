// Whether text and focus of what can be operated is readable in each state: [element, state, contrast].
() => {
  const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
  const rgba = (value) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = value;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [r2, g2, b2]) => [r * a + r2 * (1 - a), g * a + g2 * (1 - a), b * a + b2 * (1 - a), 1];
  const ground = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(element.parentElement));
  };
  const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (one, two) => {
    const [low, high] = [light(one), light(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const text = (element) => {
    const back = ground(element);
    const [r, g, b, a] = rgba(getComputedStyle(element).color);
    return ratio(over([r, g, b, a * opacity(element)], back), back);
  };
  const operated = [...document.querySelectorAll("button, a[href], select, input")].filter((each) => each.checkVisibility() && each.offsetWidth > 4);
  const results = [];
  for (const element of operated) {
    const name = `${element.tagName} ${element.id || element.className} ${element.textContent.trim().slice(0, 20)}`;
    const said = (state, value) => results.push([name, state, value]);
    said("at rest", text(element));
    element.focus({focusVisible: true, preventScroll: true});
    const style = getComputedStyle(element);
    if (document.activeElement === element) {
      said("focused", text(element));
      if (style.outlineStyle === "none") said("focus is not shown", 0);
      else said("outline", ratio(rgba(style.outlineColor), ground(element.parentElement)));
    }
    if (element.tagName !== "BUTTON") continue;
    const [pressed, disabled] = [element.ariaPressed, element.disabled];
    for (const value of ["true", "false"]) {
      element.ariaPressed = value;
      said(`pressed ${value}`, text(element));
    }
    element.ariaPressed = pressed;
    element.disabled = true;
    said("disabled", text(element));
    element.disabled = disabled;
  }
  return results;
}
