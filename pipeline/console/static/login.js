// The login page: sends the password and, where users have names, the name; then opens the wall.

import {request} from "./request.js";

const problem = document.getElementById("problem");
const password = document.getElementById("password");
const user = document.getElementById("user"); // null: there is one password for all

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  try {
    await request("/login", {method: "POST", body: JSON.stringify({user: user?.value.trim() ?? "", password: password.value})});
    location.assign("/");
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    password.select();
  }
});
