// The page of one alert.
import {connect} from "./top.js";
connect();
