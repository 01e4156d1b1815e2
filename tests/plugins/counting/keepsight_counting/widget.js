// The box is ready to type in.
document.querySelector("input[name=count]")?.select();
