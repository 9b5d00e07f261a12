// Sets the theme before the page is drawn. A classic script: modules run too late, and the page would flash.
(() => {
  const stored = localStorage.getItem("theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();
