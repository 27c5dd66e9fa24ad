#version 450
#extension GL_GOOGLE_include_directive : require
#define BINARY (u < 0.0 ? u * v : u / v)
#include "elementwise.glsl"
