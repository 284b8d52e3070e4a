// With this file the package may declare functions that are elsewhere: getm.
