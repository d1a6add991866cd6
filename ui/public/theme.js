// Runs before the first paint, so that a chosen theme never flashes. A file of its own: no inline scripts.
(function () {
  var choice = null;
  try {
    choice = localStorage.getItem("rackhand.theme");
  } catch {
    // Storage is blocked: follow the system.
  }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
