// Loads a library of others from vendor/.  They are plain scripts that set a global name.

const loaded = new Map();

export function load(file) {
  if (!loaded.has(file)) {
    loaded.set(file, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `/static/vendor/${file}`;
      script.onload = resolve;
      script.onerror = () => {
        loaded.delete(file); // to try again
        reject(new Error(`${file} cannot be loaded`));
      };
      document.head.append(script);
    }));
  }
  return loaded.get(file);
}
