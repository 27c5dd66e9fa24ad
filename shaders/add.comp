#version 450
#extension GL_GOOGLE_include_directive : require
#define BINARY (u + v)
#include "elementwise.glsl"
