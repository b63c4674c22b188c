// The login page: sends the password, then opens the wall.

import {request} from "./request.js";

const problem = document.getElementById("problem");
const password = document.getElementById("password");

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  try {
    await request("/login", {method: "POST", body: JSON.stringify({password: password.value})});
    location.assign("/");
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    password.select();
  }
});
