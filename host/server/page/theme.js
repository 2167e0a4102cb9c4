// Before anything is drawn, so that no page flashes in the wrong colours.
try {
  const theme = JSON.parse(localStorage.getItem("sterna.settings") || "{}").theme;
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* no storage: the system's colours */ }
